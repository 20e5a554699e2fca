"""``benchmark``: methods on a benchmark's data from one original, or published logs read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import typer

from unremember.errors import Collapsed, ConfigError
from unremember.registry import benchmarks, methods
from unremember.report.comparison import Artefact, plain

METHODS = ["gradient_difference", "npo", "simnpo"]


def log_run(name: str, log: Path | None, oracle_log: Path | None, as_json: bool) -> None:
    """Print forget quality and model utility of a published TOFU log."""
    from unremember.benchmarks.tofu_log import from_logs

    if benchmarks.entry(name).name != "tofu":
        raise ConfigError(f"--from-log reads logs of tofu, not of {name}")
    if log is None:
        raise ConfigError("--oracle-log needs --from-log, the log that is read against it")
    found = from_logs(log, oracle_log)
    flat = (
        {k: v for k, v in found.items() if not isinstance(v, dict | list)}
        | found["parts"]
        | {f"n, {k}": v for k, v in found["n"].items()}
    )
    notes = [f"· {note}" for note in found["notes"]]
    typer.echo(
        plain(found)
        if as_json
        else "\n".join([*(f"{k}: {'–' if v is None else v}" for k, v in flat.items()), *notes])
    )


def benchmark_run(
    name: str,
    original: str,
    oracles: Sequence[str],
    chosen: Sequence[str],
    out: Path,
    as_json: bool,
    keys: Sequence[str],
) -> None:
    """Run each method into ``out/<method>`` and compare them. A collapse is a recorded result, shown in the table."""
    from unremember.cli.compare import compared, publish
    from unremember.cli.config import read_config
    from unremember.cli.folder import notice
    from unremember.cli.forget import forget_run

    if not original:
        raise ConfigError(
            f"benchmark {name} needs --original, the model to forget from (and --oracle for verdicts)"
        )
    for method in chosen:
        methods.entry(method)
    configs = {
        method: read_config(None, {"model": original, "data": name, "method": method}, keys)
        for method in chosen
    }
    collapsed = {}
    for method, config in configs.items():
        try:
            forget_run(config, out / method)
        except Collapsed as error:
            notice(f"{method}: collapsed ({error})")
            collapsed[method] = Artefact(method, "collapsed", method, "", (), str(error))
    done = [str(out / method) for method in configs if method not in collapsed]
    comparison = compared(done, configs[chosen[0]], oracles, original, out / "observations")
    publish(
        dataclasses.replace(comparison, artefacts=(*comparison.artefacts, *collapsed.values())), out, as_json
    )
