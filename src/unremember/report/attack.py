"""The curve of an attack, for the terminal and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from unremember.report.table import number

Points = Sequence[Mapping[str, Any]]
"""``{"amount": …, "measurements": [row, …]}`` in the order of the budget."""


def curve(title: str, unit: str, points: Points, at: int) -> Table:
    """The table of the ``at``-th measurement over the budget."""
    table = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for name in (unit, "value", "oracles", "original", "recovered share", "verdict"):
        table.add_column(name)
    for point in points:
        row = point["measurements"][at]
        oracles = " ".join(number(one) for one in row["controls"].get("oracle", [])) or "–"
        table.add_row(
            f"{point['amount']:g}",
            number(row["value"]),
            oracles,
            number(row["controls"].get("original")),
            share(row),
            row["verdict"],
        )
    return table


def share(row: Mapping[str, Any]) -> str:
    """The recovered share of a measurement with its interval."""
    return (
        "–"
        if row["position"] is None
        else f"{row['position']:.2f} ({row['position_low']:.2f} … {row['position_high']:.2f})"
    )


def worst(points: Points) -> tuple[float, Mapping[str, Any]] | None:
    """(amount, measurement) at which most came out; None where no point stands on an axis."""
    placed = [
        (point["amount"], row)
        for point in points
        for row in point["measurements"]
        if row["position"] is not None
    ]
    return max(placed, key=lambda one: one[1]["position"]) if placed else None
