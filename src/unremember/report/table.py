"""The table of a comparison, for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from unremember.report.comparison import Comparison

COLUMNS = {
    "forget_quality": "forget quality (log₁₀ p)", "model_utility": "model utility", "probability": "forget probability",
    "rouge": "forget ROUGE", "truth_ratio": "truth ratio", "extraction_strength": "extraction strength",
    "exact_memorisation": "exact memorisation", "membership_loss": "membership AUC",
}  # fmt: skip
COLOURS = {"indistinguishable": "green", "under-forgotten": "yellow", "over-suppressed": "red", "uninformative": "magenta"}


def cell(measurement: Mapping[str, Any]) -> tuple[str, str, str]:
    """(value, interval, verdict) as text; a figure that could not be had is a dash."""
    value = measurement.get("value")
    if value is None:
        return "–", "", str(measurement.get("verdict", ""))
    if measurement["name"] == "forget_quality":
        log = measurement["extra"].get("log10_p")
        shown = "-inf" if log is None or not math.isfinite(log) else f"{log:.1f}"
        return shown + (" ⊥" if measurement["extra"].get("saturated") else ""), "", str(measurement["verdict"])
    low, high = measurement.get("low"), measurement.get("high")
    return f"{value:.3f}", f"{low:.2f}–{high:.2f}" if low is not None and high is not None else "", str(measurement["verdict"])


def columns(comparison: Comparison) -> dict[str, str]:
    """The columns for which any artefact has a measurement."""
    there = {m["name"] for a in comparison.artefacts for m in a.measurements}
    return {name: title for name, title in COLUMNS.items() if name in there}


def rich_table(comparison: Comparison) -> Table:
    """One row an artefact; verdicts by colour, intervals dim. ⊥ marks a saturated test."""
    table = Table(title=comparison.title, header_style="bold", title_justify="left")
    shown = columns(comparison)
    table.add_column("model")
    for title in shown.values():
        table.add_column(title, justify="right")
    for artefact in comparison.artefacts:
        cells = []
        for name in shown:
            value, interval, verdict = cell(artefact.figure(name))
            colour = COLOURS.get(verdict, "default")
            mark = "?" if verdict == "undetermined" and value != "–" else ""
            cells.append(f"[{colour}]{value}{mark}[/]" + (f"\n[dim]{interval}[/dim]" if interval else ""))
        table.add_row(f"{artefact.name}\n[dim]{artefact.kind}[/dim]", *cells)
    table.caption = (
        "green: cannot be told from the oracle · yellow: not forgotten enough · red: suppressed beyond it · ?: undetermined · ⊥: saturated"
    )
    return table


def markdown(comparison: Comparison) -> str:
    """The same table in Markdown."""
    shown = columns(comparison)
    lines = ["| model | " + " | ".join(shown.values()) + " |", "| --- |" + " ---: |" * len(shown)]
    for artefact in comparison.artefacts:
        found = [cell(artefact.figure(name)) for name in shown]
        lines.append(f"| {artefact.name} ({artefact.kind}) | " + " | ".join(f"{v} ({i})" if i else v for v, i, _ in found) + " |")
    return "\n".join(lines)
