"""``compare`` and ``report``: several models and their controls in one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unremember.cli.options import DataOption, JsonOption, OracleOption, OriginalOption, ShowTextOption
from unremember.errors import ConfigError

if TYPE_CHECKING:
    from unremember.report.comparison import Comparison


def compare_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... [KEY=VALUE]...", help="Model folders or run folders, then data.…= keys."
        ),
    ],
    data: DataOption = "people",
    oracle: OracleOption = None,
    original: OriginalOption = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")] = Path("runs/compare"),
    show_text: ShowTextOption = False,
    as_json: JsonOption = False,
) -> None:
    """Audit several models beside the original and the oracles, and write a report.

    unremember compare runs/npo runs/simnpo --oracle runs/oracle --original runs/original -d people
    """
    from unremember.runs.compare import run_comparison, save_comparison, unequal_budgets
    from unremember.runs.config import measurement_config
    from unremember.runs.folder import notice

    names = [word for word in models if "=" not in word]
    if not names:
        raise ConfigError("compare needs at least one model: a model folder, a run folder or a hub name")
    config = measurement_config(data, [word for word in models if "=" in word])
    if remark := unequal_budgets(names):
        notice(remark)
    comparison = run_comparison(
        names,
        config,
        oracles=oracle or [],
        original=original,
        store=out / "observations",
        show_text=show_text,
    )
    save_comparison(comparison, out)
    print_comparison(comparison, out, as_json)


def print_comparison(comparison: Comparison, folder: Path, as_json: bool = False) -> None:
    """Print the table of a comparison, or its JSON, and where its report is."""
    from rich.console import Console

    from unremember.report.table import rich_table
    from unremember.runs.folder import notice

    if as_json:
        print(comparison.text())
    else:
        Console().print(rich_table(comparison))
    notice(f"report: {folder / 'report.html'}")


def report_command(folder: Annotated[Path, typer.Argument(help="Folder of a comparison.")]) -> None:
    """Write report.html again from a comparison's figures.

    unremember report runs/compare
    """
    from unremember.report.comparison import Comparison
    from unremember.report.page import write_report

    typer.echo(write_report(Comparison.load(folder / "comparison.json"), folder / "report.html"))
