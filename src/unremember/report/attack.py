"""The curve of an attack over its budget, for the terminal and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from unremember.report.escaping import terminal_text
from unremember.report.table import format_value, oracle_texts

AttackCurve = Sequence[Mapping[str, Any]]
"""``{"amount": …, "measurements": [row, …]}`` for each point, in the order of the budget."""


def attack_table(title: str, unit: str, curve: AttackCurve, index: int) -> Table:
    """Return the table of one measurement over the budget.

    Args:
        title: The table's title.
        unit: The unit of the budget.
        curve: The points of the attack.
        index: The measurement's place in ``measurements``.
    """
    table = Table(
        box=None, title=terminal_text(title), title_justify="left", pad_edge=False, header_style="bold"
    )
    for name in (unit, "value", "oracles", "original", "recovered share", "verdict"):
        table.add_column(name)
    for point in curve:
        row = point["measurements"][index]
        table.add_row(
            f"{point['amount']:g}",
            format_value(row["value"]),
            oracle_texts(row, " "),
            format_value(row["controls"].get("original")),
            recovered_share(row),
            row["verdict"],
        )
    return table


def recovered_share(row: Mapping[str, Any]) -> str:
    """Return the recovered share of a measurement with its interval, as text."""
    if row["position"] is None:
        return "–"
    return f"{row['position']:.2f} ({row['position_low']:.2f} … {row['position_high']:.2f})"


def worst_point(curve: AttackCurve) -> tuple[float, Mapping[str, Any]] | None:
    """Return (amount, measurement) of the largest recovered share; None if no measurement has a share."""
    candidates = [
        (point["amount"], row)
        for point in curve
        for row in point["measurements"]
        if row["position"] is not None
    ]
    return max(candidates, key=lambda candidate: candidate[1]["position"]) if candidates else None
