"""The table of a comparison, for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from unremember.report.comparison import Comparison
from unremember.report.escaping import markdown_text, terminal_text

TOFU_TITLES = {
    "forget_quality": "forget quality (log₁₀ p)",
    "model_utility": "model utility",
    "probability": "forget probability",
    "rouge": "forget ROUGE",
    "truth_ratio": "truth ratio",
    "extraction_strength": "extraction strength",
    "exact_memorisation": "exact memorisation",
    "membership_loss": "membership AUC",
}
_MUSE_TITLES = {
    "verbatim_memorisation": "VerbMem",
    "knowledge_memorisation": "KnowMem, forget",
    "privleak privleak_forget": "PrivLeak",
    "membership_mink privleak_forget": "membership AUC, Min-K",
    "knowledge_memorisation knowmem_retain": "KnowMem, retain",
}
COLUMN_TITLES = {**TOFU_TITLES, **_MUSE_TITLES}
SHORT_TITLES = {
    "forget_quality": "forget\nlog₁₀ p",
    "model_utility": "utility",
    "probability": "prob",
    "rouge": "ROUGE",
    "truth_ratio": "truth\nratio",
    "extraction_strength": "extr.\nstr.",
    "exact_memorisation": "exact\nmem.",
    "membership_loss": "member\nAUC",
    "verbatim_memorisation": "Verb\nMem",
    "knowledge_memorisation": "Know\nMem",
    "privleak privleak_forget": "Priv\nLeak",
    "membership_mink privleak_forget": "member\nAUC",
    "knowledge_memorisation knowmem_retain": "Know\nretain",
}
"""The same columns in lines of 80 characters; the intervals are in the report."""
_VERDICT_COLOURS = {
    "indistinguishable": "green",
    "under-forgotten": "yellow",
    "over-suppressed": "red",
    "uninformative": "magenta",
}
_COLOURS_LEGEND = (
    "[green]green[/]: cannot be told from the oracle · [yellow]yellow[/]: not forgotten enough · "
    "[red]red[/]: suppressed beyond it · ?: undetermined · ⊥: saturated"
)
VERDICT_MARKS = {
    "indistinguishable": " ≈",
    "under-forgotten": " ↑",
    "over-suppressed": " ↓",
    "undetermined": " ?",
    "uninformative": " –",
}
"""Verdicts where there are no colours."""
MARKS_LEGEND = (
    "≈ cannot be told from the oracle, ↑ not forgotten enough, ↓ suppressed beyond it, "
    "? undetermined (the note says why), – original and oracle cannot be told apart."
)


def format_value(value: float | None) -> str:
    """Return a figure with three decimals; a dash for None."""
    return "–" if value is None else f"{value:z.3f}"


def oracle_texts(measurement: Mapping[str, Any], separator: str) -> str:
    """Return the values of the oracles of a measurement; a dash if there is none."""
    values = measurement["controls"].get("oracle", [])
    return separator.join(format_value(value) for value in values) or "–"


def cell_texts(measurement: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return (value, interval, verdict) as text; a missing value is a dash."""
    value, verdict = measurement.get("value"), str(measurement.get("verdict", ""))
    if value is None:
        return "–", "", verdict
    if measurement["name"] == "forget_quality":
        log10_p = measurement["extra"].get("log10_p")
        text = "-inf" if log10_p is None or not math.isfinite(log10_p) else f"{log10_p:z.1f}"
        return text + ("⊥" if measurement["extra"].get("saturated") else ""), "", verdict
    low, high = measurement.get("low"), measurement.get("high")
    interval = f"{low:.2f}–{high:.2f}" if low is not None and high is not None else ""
    return format_value(value), interval, verdict


def column_titles(comparison: Comparison) -> dict[str, str]:
    """Return the titles of the table's columns, by measurement.

    These are the known columns for which any model has a measurement. If no model has one of them, every
    measurement gets a column.
    """
    measured = dict.fromkeys(m["name"] for artefact in comparison.artefacts for m in artefact.measurements)
    known = {name: title for name, title in COLUMN_TITLES.items() if name in measured}
    return known or {name: name.replace("_", " ") for name in measured}


def rich_table(comparison: Comparison) -> Table:
    """Return a row for each model, with verdicts as colours, in 80 characters. ⊥ marks a saturated test."""
    table = Table(
        title=terminal_text(comparison.title),
        header_style="bold",
        title_justify="left",
        box=None,
        pad_edge=False,
        collapse_padding=True,
        caption=_COLOURS_LEGEND,
        caption_justify="left",
    )
    titles = column_titles(comparison)
    table.add_column("model", overflow="fold")
    for name, title in titles.items():
        table.add_column(SHORT_TITLES.get(name, title.replace(" ", "\n")), justify="right", no_wrap=True)
    for artefact in comparison.artefacts:
        kind = (
            ""
            if artefact.kind in (artefact.name, "unlearned")
            else f" [dim]{terminal_text(artefact.kind)}[/dim]"
        )
        cells = (_coloured_value(artefact.figure(name)) for name in titles)
        table.add_row(terminal_text(artefact.name) + kind, *cells)
    return table


def measurement_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the measurements of one model, a line each, beside the values of its controls."""
    table = Table(
        title=terminal_text(title),
        header_style="bold",
        title_justify="left",
        box=None,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("metric", "value", "95 %", "oracle", "original", "verdict"):
        is_text = name in ("metric", "verdict")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text)
    for row in rows:
        _, interval, verdict = cell_texts(row)
        table.add_row(
            terminal_text(str(row["name"])),
            _coloured_value(row),
            interval,
            oracle_texts(row, ", "),
            format_value(row["controls"].get("original")),
            verdict,
        )
    return table


def _coloured_value(measurement: Mapping[str, Any]) -> str:
    value, _, verdict = cell_texts(measurement)
    mark = "?" if verdict == "undetermined" and value != "–" else ""
    return f"[{_VERDICT_COLOURS.get(verdict, 'default')}]{value}{mark}[/]"


def markdown_table(comparison: Comparison) -> str:
    """Return the table in Markdown, with intervals and marks for verdicts; a collapse stands by the name."""
    titles = column_titles(comparison)
    lines = [
        "| model | " + " | ".join(map(markdown_text, titles.values())) + " |",
        "| --- |" + " ---: |" * len(titles),
    ]
    for artefact in comparison.artefacts:
        name = f"{artefact.name} ({name_of_collapse(artefact.measurements) or artefact.kind})"
        cells = [_marked_cell(artefact.figure(column)) for column in titles]
        lines.append(f"| {markdown_text(name)} | {' | '.join(map(markdown_text, cells))} |")
    return "\n".join([*lines, "", MARKS_LEGEND])


def _marked_cell(measurement: Mapping[str, Any]) -> str:
    value, interval, verdict = cell_texts(measurement)
    text = f"{value} ({interval})" if interval else value
    return text + VERDICT_MARKS.get(verdict, "")


def name_of_collapse(measurements: Sequence[Mapping[str, Any]]) -> str:
    """Return what collapsed, as the notes of measurements say ("the model collapsed"); "" if nothing did."""
    for measurement in measurements:
        if "collapsed" in str(measurement.get("note", "")):
            return str(measurement["note"]).split(":")[0]
    return ""
