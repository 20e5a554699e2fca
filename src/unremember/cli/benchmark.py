"""``benchmark``: methods on a benchmark's data from one original, or the figures of published logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unremember.cli.options import JsonOption, KeysArgument, OracleOption, OriginalOption
from unremember.errors import ConfigError


def benchmark_command(
    name: Annotated[str, typer.Argument(help="See `unremember benchmarks`.")],
    from_log: Annotated[
        Path | None, typer.Option(help="A published TOFU evaluation log: its figures, without a model.")
    ] = None,
    oracle_log: Annotated[
        Path | None, typer.Option(help="The retrained model's log, for the forget quality.")
    ] = None,
    original: OriginalOption = "",
    oracle: OracleOption = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Method to run; may be given several times.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the runs and the report.")] = Path(
        "runs/benchmark"
    ),
    as_json: JsonOption = False,
    keys: KeysArgument = None,
) -> None:
    """Run methods on a benchmark and compare them, or check a published log.

    unremember benchmark tofu data.path=TOFU --original ORIGINAL --oracle RETAIN90 --method npo lr=1e-4

    unremember benchmark tofu --from-log eval.json --oracle-log retain.json --json
    """
    if from_log is not None or oracle_log is not None:
        print_log(name, from_log, oracle_log, as_json)
        return
    from unremember.cli.compare import print_comparison
    from unremember.runs.benchmark import BENCHMARK_METHODS, run_benchmark

    comparison = run_benchmark(
        name,
        original,
        out,
        oracles=oracle or [],
        methods=method or BENCHMARK_METHODS,
        keys=keys or [],
    )
    print_comparison(comparison, out, as_json)


def print_log(name: str, log: Path | None, oracle_log: Path | None, as_json: bool) -> None:
    """Print forget quality and model utility of a published TOFU log.

    Raises:
        ConfigError: The benchmark is not TOFU, or there is no log to measure.
    """
    from unremember.benchmarks.tofu_log import scores_from_logs
    from unremember.registry import benchmarks
    from unremember.report.comparison import strict_json

    if benchmarks.entry(name).name != "tofu":
        raise ConfigError(f"--from-log reads logs of tofu, not of {name}")
    if log is None:
        raise ConfigError("--oracle-log needs --from-log, the log that is measured against it")
    figures = scores_from_logs(log, oracle_log)
    if as_json:
        typer.echo(strict_json(figures))
        return
    lines = {key: value for key, value in figures.items() if not isinstance(value, dict | list)}
    lines |= figures["parts"] | {f"n, {role}": count for role, count in figures["n"].items()}
    for key, value in lines.items():
        typer.echo(f"{key}: {'–' if value is None else value}")
    for note in figures["notes"]:
        typer.echo(f"· {note}")
