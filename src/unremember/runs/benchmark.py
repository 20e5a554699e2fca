"""Run methods on a benchmark's data from one original, and compare them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from unremember.errors import Collapsed, ConfigError
from unremember.report.comparison import Artefact, Comparison
from unremember.runs.compare import run_comparison, save_comparison
from unremember.runs.config import read_config
from unremember.runs.folder import notice
from unremember.runs.forget import check_forget, run_forget

BENCHMARK_METHODS = ("gradient_difference", "npo", "simnpo")
"""The methods that a benchmark runs where none is named."""


def run_benchmark(
    name: str,
    original: str,
    folder: Path,
    *,
    oracles: Sequence[str] = (),
    methods: Sequence[str] = BENCHMARK_METHODS,
    keys: Sequence[str] = (),
) -> Comparison:
    """Run each method into ``folder/METHOD``, compare them and write the report.

    A collapse is a recorded result, which the table shows.

    Args:
        name: The benchmark.
        original: The model to forget from.
        keys: ``key=value`` settings of every run.
    """
    if not original:
        raise ConfigError(
            f"benchmark {name} needs --original, the model to forget from (and --oracle for verdicts)"
        )
    configs = {
        method: read_config(None, {"model": original, "data": name, "method": method}, keys)
        for method in methods
    }
    for config in configs.values():
        check_forget(config)
    collapsed = {}
    for method, config in configs.items():
        try:
            run_forget(config, folder / method)
        except Collapsed as error:
            notice(f"{method}: collapsed ({error})")
            collapsed[method] = Artefact(method, "collapsed", method, "", (), str(error))
    comparison = run_comparison(
        [str(folder / method) for method in configs if method not in collapsed],
        configs[methods[0]],
        oracles=oracles,
        original=original,
        store=folder / "observations",
    )
    comparison = dataclasses.replace(comparison, artefacts=(*comparison.artefacts, *collapsed.values()))
    save_comparison(comparison, folder)
    return comparison
