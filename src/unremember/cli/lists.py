"""``methods``, ``losses``, ``audits`` … and ``taxonomy``: what there is of each kind of part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from unremember.registry import Entry

_KINDS = (
    "methods",
    "losses",
    "blends",
    "samplings",
    "selections",
    "observations",
    "audits",
    "attacks",
    "benchmarks",
    "tasks",
)
"""The kinds of the registry, which is not imported for help."""
_PANEL = "What there is"


def add_lists(app: typer.Typer) -> None:
    """Add one listing command for each kind of part, and the taxonomy."""
    for kind in _KINDS:
        text = f"List the {kind}, or show one of them in full.\n\nunremember {kind}"
        app.command(kind, rich_help_panel=_PANEL, help=text)(list_command(kind))
    app.command("taxonomy", rich_help_panel=_PANEL)(taxonomy_command)


def list_command(kind: str) -> Callable[..., None]:
    """Return the command that lists one kind."""

    def show(
        name: str = typer.Argument("", metavar="[NAME]", help="Show this one in full.", show_default=False),
        as_json: bool = typer.Option(False, "--json", help="Print JSON objects."),
    ) -> None:
        import json

        from unremember.registry import REGISTRIES

        registry = REGISTRIES[kind]
        entries = [registry.entry(name)] if name else registry.all()
        if as_json:
            typer.echo(json.dumps([entry.row() for entry in entries], indent=2))
        elif name:
            typer.echo(entry_text(entries[0]))
        else:
            print_entries(entries)

    return show


def entry_text(entry: Entry) -> str:
    """Return everything an entry says about itself: docstring, paper, needs, parameters and defaults."""
    import inspect

    from unremember.taxonomy import ELEMENT_BY_ID

    row = entry.row()
    facts = {
        "paper": " ".join(filter(None, (entry.paper, entry.arxiv and f"(arXiv {entry.arxiv})"))),
        "needs": ", ".join(entry.needs),
        "fidelity": entry.fidelity,
        "taxonomy": entry.taxonomy and f"{entry.taxonomy}: {ELEMENT_BY_ID[entry.taxonomy].what}",
        "cost of a step": row.get("cost", ""),
        "parameters": ", ".join(f"{key}={default}" for key, default in row["parameters"].items()),
    }
    doc = (inspect.getdoc(entry.make) or entry.summary).replace("``", "`")
    return "\n".join(
        [entry.name, "", doc, "", *(f"{title}: {text}" for title, text in facts.items() if text)]
    )


def print_entries(entries: Sequence[Entry]) -> None:
    """Print a line for each entry, with the cost of a step where entries state it."""
    from rich.console import Console
    from rich.table import Table

    from unremember.report.escaping import terminal_text

    costs = any(entry.price for entry in entries)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("what it does", ratio=1)
    table.add_column("paper", no_wrap=True)
    table.add_column("needs; forwards and backwards a step" if costs else "needs", max_width=18)
    table.add_column("fidelity", no_wrap=True)
    for entry in entries:
        price = "{}F {}B".format(*entry.price) if entry.price else ""
        needs = "; ".join(filter(None, (", ".join(entry.needs), price)))
        summary = entry.summary.replace("`", "")
        texts = (entry.name, summary, entry.arxiv or entry.paper, needs, entry.fidelity)
        table.add_row(*map(terminal_text, texts))
    Console().print(table)


def taxonomy_command(as_json: bool = typer.Option(False, "--json", help="Print JSON objects.")) -> None:
    """List the field's taxonomy, with the parts that implement each element.

    unremember taxonomy
    """
    import dataclasses
    import json

    from rich.console import Console
    from rich.table import Table

    from unremember.registry import elements_with_parts
    from unremember.taxonomy import count_covered

    elements = elements_with_parts()
    if as_json:
        rows = [{**dataclasses.asdict(element), "here": list(names)} for element, names in elements]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("id", no_wrap=True, style="bold")
    table.add_column("what", ratio=2)
    table.add_column("as", no_wrap=True)
    table.add_column("here", ratio=3)
    for element, names in elements:
        table.add_row(element.id, element.what, element.how, ", ".join(names) or "–")
    Console().print(table)
    present, possible = count_covered(elements)
    typer.echo(f"{present} of {possible} elements that code or a library can bring are here")
