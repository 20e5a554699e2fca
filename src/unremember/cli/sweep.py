"""``sweep``: many configurations, forgotten and measured beside the same controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unremember.cli.options import AllowImportOption, JsonOption, OracleOption


def sweep_command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...",
            help="A YAML file as for `forget -c`, settings, and what is swept: "
            "sweep.lr=[1e-4,1e-3], sweep.method=\\[npo,simnpo].",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder of the points and the page; finished points are not run again."
        ),
    ],
    oracle: OracleOption = None,
    original: Annotated[
        str, typer.Option("--original", help="The model before forgetting, if it is not the configuration's.")
    ] = "",
    floor: Annotated[
        float, typer.Option(min=0, help="Share of the original's utility that a recommended point keeps.")
    ] = 0.9,
    search: Annotated[
        int,
        typer.Option(
            min=0,
            help="Search this many points with Optuna, in ranges (sweep.lr=1e-5..1e-3) as well as lists; "
            "without it, all points are crossed.",
        ),
    ] = 0,
    matched: Annotated[
        bool,
        typer.Option("--matched", help="End each point at matched forgetting (its schedule is constant)."),
    ] = False,
    every: Annotated[
        int, typer.Option(min=0, help="With --matched: steps between two evaluations (0: an epoch).")
    ] = 0,
    cluster: Annotated[
        str,
        typer.Option(
            help="Address of a Ray cluster, host:port or auto; without it, the cores of this machine."
        ),
    ] = "",
    allow_import: AllowImportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget with many configurations, measure all of them beside the same controls, and recommend one.

    unremember sweep run.yaml -o runs/sweep --oracle runs/oracle sweep.lr=[1e-4,3e-4]

    unremember sweep run.yaml -o runs/search --oracle runs/oracle --search 30 sweep.lr=1e-5..1e-3

    unremember forget -c runs/sweep/best.yaml -o runs/best
    """
    from rich.console import Console

    from unremember.runs.folder import notice
    from unremember.runs.sweep.axes import read_sweep
    from unremember.runs.sweep.result import CONFIRM, sweep_table
    from unremember.runs.sweep.run import run_sweep

    tree, axes = read_sweep(words, matched, allow_import or [])
    result = run_sweep(
        tree,
        axes,
        out,
        oracles=oracle or [],
        original=original,
        floor=floor,
        count=search,
        matched=matched,
        every=every,
        address=cluster,
    )
    if as_json:
        print(result.text())
        return
    console = Console()
    console.print(sweep_table(result))
    console.print(result.verdict(), markup=False, highlight=False)
    notice(f"page: {out / 'sweep.md'}")
    if result.best:
        notice(f"configuration: {out / 'best.yaml'}. {CONFIRM}")
