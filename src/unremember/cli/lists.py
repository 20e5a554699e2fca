"""``methods``, ``losses``, ``blends``, ``samplings``, ``selections``, ``audits``, ``benchmarks``: what there is."""

from __future__ import annotations

import json
from collections.abc import Callable

import typer

from unremember.registry import ALL, Registry


def add_lists(app: typer.Typer) -> None:
    """One listing command for each registry."""
    for kind, registry in ALL.items():
        app.command(kind, rich_help_panel="What there is", help=f"List the {kind}.")(listing(registry))


def listing(registry: Registry) -> Callable[..., None]:
    """The command that lists one registry."""

    def show(as_json: bool = typer.Option(False, "--json", help="Print JSON objects.")) -> None:
        rows = [entry.row() for entry in registry.all()]
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("name", no_wrap=True, style="bold")
        table.add_column("what it does", ratio=1)
        table.add_column("paper", no_wrap=True)
        table.add_column("needs", max_width=18)
        table.add_column("fidelity", no_wrap=True)
        for row in rows:
            table.add_row(row["name"], row["summary"].replace("`", ""), row["arxiv"] or row["paper"], ", ".join(row["needs"]), row["fidelity"])
        Console().print(table)

    return show
