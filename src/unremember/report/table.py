"""The table of a comparison, for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from unremember.report.comparison import Comparison

TOFU = {
    "forget_quality": "forget quality (log₁₀ p)",
    "model_utility": "model utility",
    "probability": "forget probability",
    "rouge": "forget ROUGE",
    "truth_ratio": "truth ratio",
    "extraction_strength": "extraction strength",
    "exact_memorisation": "exact memorisation",
    "membership_loss": "membership AUC",
}
MUSE = {
    "verbatim_memorisation": "VerbMem",
    "knowledge_memorisation": "KnowMem, forget",
    "privleak privleak_forget": "PrivLeak",
    "membership_mink privleak_forget": "membership AUC, Min-K",
    "knowledge_memorisation knowmem_retain": "KnowMem, retain",
}
COLUMNS = {**TOFU, **MUSE}
SHORT = {
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
"""The same columns where a line has 80 characters: intervals are in the report."""
COLOURS = {
    "indistinguishable": "green",
    "under-forgotten": "yellow",
    "over-suppressed": "red",
    "uninformative": "magenta",
}
LEGEND = (
    "[green]green[/]: cannot be told from the oracle · [yellow]yellow[/]: not forgotten enough · [red]red[/]: suppressed beyond it · "
    "?: undetermined · ⊥: saturated"
)
MARKS = {
    "indistinguishable": " ≈",
    "under-forgotten": " ↑",
    "over-suppressed": " ↓",
    "undetermined": " ?",
    "uninformative": " –",
}
READ = (
    "≈ cannot be told from the oracle, ↑ not forgotten enough, ↓ suppressed beyond it, ? undetermined (the note says why), "
    "– original and oracle cannot be told apart."
)
"""Verdicts where there are no colours."""


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:z.3f}"


def cell(measurement: Mapping[str, Any]) -> tuple[str, str, str]:
    """(value, interval, verdict) as text; a figure that could not be had is a dash."""
    value, verdict = measurement.get("value"), str(measurement.get("verdict", ""))
    if value is None:
        return "–", "", verdict
    if measurement["name"] == "forget_quality":
        log = measurement["extra"].get("log10_p")
        shown = "-inf" if log is None or not math.isfinite(log) else f"{log:z.1f}"
        return shown + ("⊥" if measurement["extra"].get("saturated") else ""), "", verdict
    low, high = measurement.get("low"), measurement.get("high")
    return number(value), f"{low:.2f}–{high:.2f}" if low is not None and high is not None else "", verdict


def coloured(measurement: Mapping[str, Any]) -> str:
    value, _, verdict = cell(measurement)
    mark = "?" if verdict == "undetermined" and value != "–" else ""
    return f"[{COLOURS.get(verdict, 'default')}]{value}{mark}[/]"


def columns(comparison: Comparison) -> dict[str, str]:
    """The columns for which any artefact has a measurement; where it has none of them, a column for each measurement there is."""
    there = dict.fromkeys(m["name"] for a in comparison.artefacts for m in a.measurements)
    return {name: title for name, title in COLUMNS.items() if name in there} or {
        name: name.replace("_", " ") for name in there
    }


def rich_table(comparison: Comparison) -> Table:
    """One row an artefact, its verdicts by colour, in 80 characters. ⊥ marks a saturated test."""
    table = Table(
        title=comparison.title,
        header_style="bold",
        title_justify="left",
        box=None,
        pad_edge=False,
        collapse_padding=True,
        caption=LEGEND,
        caption_justify="left",
    )
    shown = columns(comparison)
    table.add_column("model", overflow="fold")
    for name in shown:
        table.add_column(SHORT.get(name, shown[name].replace(" ", "\n")), justify="right", no_wrap=True)
    for artefact in comparison.artefacts:
        kind = "" if artefact.kind in (artefact.name, "unlearned") else f" [dim]{artefact.kind}[/dim]"
        table.add_row(escape(artefact.name) + kind, *(coloured(artefact.figure(name)) for name in shown))
    return table


def card(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The measurements of one artefact, a line each, between the values of its controls."""
    table = Table(
        title=title,
        header_style="bold",
        title_justify="left",
        box=None,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("metric", "value", "95 %", "oracle", "original", "verdict"):
        table.add_column(
            name,
            justify="left" if name in ("metric", "verdict") else "right",
            no_wrap=name not in ("metric", "verdict"),
        )
    for row in rows:
        _, interval, verdict = cell(row)
        oracles = ", ".join(number(value) for value in row["controls"].get("oracle", [])) or "–"
        table.add_row(
            str(row["name"]),
            coloured(row),
            interval,
            oracles,
            number(row["controls"].get("original")),
            verdict,
        )
    return table


def markdown(comparison: Comparison) -> str:
    """The same table in Markdown, with intervals and marks for verdicts; what notes say of a collapse stands beside the name."""
    shown = columns(comparison)
    lines = ["| model | " + " | ".join(shown.values()) + " |", "| --- |" + " ---: |" * len(shown)]
    for artefact in comparison.artefacts:
        found = [cell(artefact.figure(name)) for name in shown]
        told = [f"{value} ({interval})" if interval else value for value, interval, _ in found]
        name = f"{artefact.name} ({fallen(artefact.measurements) or artefact.kind})"
        lines.append(
            f"| {name} | "
            + " | ".join(text + MARKS.get(verdict, "") for text, (*_, verdict) in zip(told, found))
            + " |"
        )
    return "\n".join([*lines, "", READ])


def fallen(measurements: Sequence[Mapping[str, Any]]) -> str:
    """Who collapsed, as the notes of one model's measurements say it; "" where nobody did."""
    return next(
        (str(m["note"]).split(":")[0] for m in measurements if "collapsed" in str(m.get("note", ""))), ""
    )
