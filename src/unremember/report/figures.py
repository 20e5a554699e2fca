"""The figures of a comparison: interactive in the page, and PNG files beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from unremember.errors import printable
from unremember.report.comparison import ComparedArtefact, Comparison
from unremember.report.labels import label_layers, place_labels
from unremember.report.table import COLUMN_TITLES

FIGURE_WIDTH, FIGURE_HEIGHT = 620, 320
POSITION_LIMITS = (-2.0, 3.0)
"""Positions beyond are drawn at the edge: a metric whose controls are close together has no bound."""
_MODEL_COLOURS = ["#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C564B", "#B8A300"]
CONTROL_COLOURS = {"original": "#555555", "oracle": "#009E73"}
_METRIC_TITLES = {
    **COLUMN_TITLES,
    "membership_mink": "membership AUC, Min-K",
    "membership_zlib": "membership AUC, zlib",
}
_TRADEOFF_COLUMNS = ["model", "utility", "low", "high", "log10 p", "place"]
_POSITION_COLUMNS = ["model", "metric", "position", "low", "high"]


def comparison_charts(comparison: Comparison) -> dict[str, alt.TopLevelMixin]:
    """Return the charts for which the comparison has data, by name."""
    artefacts = [dataclasses.replace(a, name=printable(a.name)) for a in comparison.artefacts]
    comparison = dataclasses.replace(comparison, artefacts=tuple(artefacts))
    charts: dict[str, alt.TopLevelMixin] = {}
    if any(
        a.figure("forget_quality").get("value") is not None and a.figure("model_utility") for a in artefacts
    ):
        charts["tradeoff"] = tradeoff_chart(comparison)
    if any(_has_position(m) for a in artefacts for m in a.measurements):
        charts["positions"] = position_chart(comparison)
    if any(a.curve for a in artefacts):
        charts["curves"] = epoch_chart(comparison)
    return charts


def tradeoff_chart(comparison: Comparison) -> alt.TopLevelMixin:
    """Draw forget quality (log10 p) against model utility: up and right is better."""
    rows = [row for artefact in comparison.artefacts if (row := _tradeoff_row(artefact)) is not None]
    bottom = min([-2.0, *(1.08 * row["log10 p"] for row in rows)])
    top = -0.05 * bottom
    positions = place_labels(
        [
            (
                row["model"],
                row["utility"] * FIGURE_WIDTH,
                (top - row["log10 p"]) / (top - bottom) * FIGURE_HEIGHT,
            )
            for row in rows
        ]
    )
    rows = [{**row, "place": str(position)} for row, position in zip(rows, positions)]
    base = alt.Chart(pd.DataFrame(rows, columns=_TRADEOFF_COLUMNS))
    x = alt.X(
        "utility:Q",
        title="model utility (95 % interval)",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(tickCount=5),
    )
    y = alt.Y(
        "log10 p:Q",
        title="forget quality, log₁₀ p (0: like the oracle)",
        scale=alt.Scale(domain=[bottom, top], nice=False),
    )
    colour = _model_colour(comparison).legend(None)
    points = base.mark_point(filled=True, size=130, opacity=1).encode(
        x=x, y=y, color=colour, tooltip=["model", "utility", "log10 p"]
    )
    intervals = base.mark_rule(opacity=0.5).encode(x="low:Q", x2="high:Q", y=y, color=colour)
    names = label_layers(base.encode(x=x, y=y, color=colour), "model", positions)
    return alt.layer(intervals, points, *names).properties(
        width=FIGURE_WIDTH, height=FIGURE_HEIGHT, title="Forgetting against utility: up and right is better"
    )


def _tradeoff_row(artefact: ComparedArtefact) -> dict[str, Any] | None:
    """Return a model's point of the trade-off; None where one of its figures is missing."""
    quality, utility = artefact.figure("forget_quality"), artefact.figure("model_utility")
    if quality.get("value") is None or utility.get("value") is None:
        return None
    if quality["extra"].get("log10_p") is None:
        return None
    return {
        "model": artefact.name,
        "utility": utility["value"],
        "low": utility["low"],
        "high": utility["high"],
        "log10 p": quality["extra"]["log10_p"],
    }


def position_chart(comparison: Comparison) -> alt.LayerChart:
    """Draw each metric on the axis from oracle (0) to original (1), with its interval."""
    rows = [
        {
            "model": artefact.name,
            "metric": _metric_title(m["name"]),
            "position": m["position"],
            "low": m["position_low"],
            "high": m["position_high"],
        }
        for artefact in comparison.artefacts
        for m in artefact.measurements
        if _has_position(m)
    ]
    base = alt.Chart(pd.DataFrame(rows, columns=_POSITION_COLUMNS))
    domain = [
        max(POSITION_LIMITS[0], min(-0.25, *(row["low"] for row in rows))),
        min(POSITION_LIMITS[1], max(1.25, *(row["high"] for row in rows))),
    ]
    x = alt.X(
        "position:Q",
        title="oracle (0) → original (1), cut at −2 and 3",
        axis=alt.Axis(tickCount=6),
        scale=alt.Scale(domain=domain, nice=False, clamp=True),
    )
    y, offset = alt.Y("metric:N", title=None), alt.YOffset("model:N")
    colour = _model_colour(comparison)
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x, y=y, yOffset=offset, color=colour, tooltip=_POSITION_COLUMNS
    )
    intervals = base.mark_rule(strokeWidth=2).encode(
        x="low:Q", x2="high:Q", y=y, yOffset=offset, color=colour
    )
    controls = (
        alt.Chart(pd.DataFrame({"at": [0.0, 1.0]}))
        .mark_rule(strokeDash=[4, 4], color="#888")
        .encode(x="at:Q")
    )
    return (controls + intervals + points).properties(
        width=FIGURE_WIDTH,
        height=alt.Step(12),
        title="Where each metric stands between oracle and original",
    )


def epoch_chart(comparison: Comparison) -> alt.FacetChart:
    """Draw each metric after every epoch, with a panel for each metric and a line for each model."""
    rows = [
        {"model": artefact.name, "epoch": point["epoch"], "metric": _metric_title(name), "value": value}
        for artefact in comparison.artefacts
        for point in artefact.curve
        for name, value in point.items()
        if name != "epoch" and value is not None
    ]
    lines = (
        alt.Chart(pd.DataFrame(rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=_model_colour(comparison),
            tooltip=["model", "epoch", "value"],
        )
        .properties(width=FIGURE_WIDTH // 2 - 40, height=170)
    )
    return (
        lines.facet(alt.Facet("metric:N", title=None), columns=2)
        .resolve_scale(y="independent")
        .properties(title="Epoch by epoch")
    )


def _metric_title(metric: str) -> str:
    return _METRIC_TITLES.get(metric, metric.replace("_", " "))


def _model_colour(comparison: Comparison) -> alt.Color:
    """Return a colour for each model; those of the controls are fixed."""
    names = [a.name for a in comparison.artefacts if a.measurements or a.curve]
    colours = iter(_MODEL_COLOURS * (1 + len(names) // len(_MODEL_COLOURS)))
    shades = [CONTROL_COLOURS.get(a.kind) or next(colours) for a in comparison.artefacts if a.name in names]
    return alt.Color("model:N", title=None, scale=alt.Scale(domain=names, range=shades))


def _has_position(measurement: Mapping[str, Any]) -> bool:
    return all(measurement.get(key) is not None for key in ("position", "position_low", "position_high"))


def save_png(chart: alt.TopLevelMixin, path: Path) -> None:
    """Write a chart as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.save(str(path), scale_factor=2)
