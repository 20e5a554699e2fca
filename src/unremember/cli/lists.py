"""``methods``, ``losses``, ``blends``, ``samplings``, ``selections``, ``audits``, ``benchmarks``, ``taxonomy``: what there is."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Sequence

import typer

from unremember.registry import ALL, Entry, Registry, covered
from unremember.taxonomy import IDS, counted


def add_lists(app: typer.Typer) -> None:
    """One listing command for each registry."""
    for kind, registry in ALL.items():
        text = f"List the {kind}, or show one of them in full.\n\nunremember {kind}"
        app.command(kind, rich_help_panel="What there is", help=text)(listing(registry))
    app.command(rich_help_panel="What there is")(taxonomy)


def taxonomy(as_json: bool = typer.Option(False, "--json", help="Print JSON objects.")) -> None:
    """List the field's taxonomy with what is here of it.

    unremember taxonomy
    """
    from rich.console import Console
    from rich.table import Table

    found = covered()
    if as_json:
        typer.echo(
            json.dumps(
                [{**dataclasses.asdict(element), "here": list(names)} for element, names in found], indent=2
            )
        )
        return
    made = Table(box=None, header_style="bold", pad_edge=False)
    made.add_column("id", no_wrap=True, style="bold")
    made.add_column("what", ratio=2)
    made.add_column("as", no_wrap=True)
    made.add_column("here", ratio=3)
    for element, names in found:
        made.add_row(element.id, element.what, element.how, ", ".join(names) or "–")
    Console().print(made)
    here, asked = counted(found)
    typer.echo(f"{here} of {asked} elements that code or a library can bring are here")


def listing(registry: Registry) -> Callable[..., None]:
    """The command that lists one registry."""

    def show(
        name: str = typer.Argument("", metavar="[NAME]", help="Show this one in full.", show_default=False),
        as_json: bool = typer.Option(False, "--json", help="Print JSON objects."),
    ) -> None:
        entries = [registry.entry(name)] if name else registry.all()
        if as_json:
            typer.echo(json.dumps([entry.row() for entry in entries], indent=2))
        elif name:
            typer.echo(full(entries[0]))
        else:
            table(entries)

    return show


def full(entry: Entry) -> str:
    """Everything an entry says about itself: its docstring, its facts, its parameters with their defaults."""
    row = entry.row()
    facts = {
        "paper": " ".join(filter(None, (entry.paper, entry.arxiv and f"(arXiv {entry.arxiv})"))),
        "needs": ", ".join(entry.needs),
        "fidelity": entry.fidelity,
        "taxonomy": entry.taxonomy and f"{entry.taxonomy}: {IDS[entry.taxonomy].what}",
        "cost of a step": row.get("cost", ""),
        "parameters": ", ".join(f"{key}={default}" for key, default in row["parameters"].items()),
    }
    lines = [f"{title}: {text}" for title, text in facts.items() if text]
    return "\n".join(
        [entry.name, "", (inspect.getdoc(entry.make) or entry.summary).replace("``", "`"), "", *lines]
    )


def table(entries: Sequence[Entry]) -> None:
    """A line an entry; what a step costs where they state it."""
    from rich.console import Console
    from rich.table import Table

    costs = any(entry.price for entry in entries)
    made = Table(box=None, header_style="bold", pad_edge=False)
    made.add_column("name", no_wrap=True, style="bold")
    made.add_column("what it does", ratio=1)
    made.add_column("paper", no_wrap=True)
    made.add_column("needs; forwards and backwards a step" if costs else "needs", max_width=18)
    made.add_column("fidelity", no_wrap=True)
    for entry in entries:
        price = "{}F {}B".format(*entry.price) if entry.price else ""
        needs = "; ".join(filter(None, (", ".join(entry.needs), price)))
        made.add_row(
            entry.name, entry.summary.replace("`", ""), entry.arxiv or entry.paper, needs, entry.fidelity
        )
    Console().print(made)
