"""Figures: interactive in the page, PNG beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from unremember.report.comparison import Comparison
from unremember.report.labels import named, places
from unremember.report.table import COLUMNS

WIDTH, HEIGHT = 620, 320
COLOURS = ["#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C564B", "#B8A300"]
CONTROLS = {"original": "#555555", "oracle": "#009E73"}
EDGES = (-2.0, 3.0)
"""Positions beyond are drawn at the edge: a probe whose controls lie close together has no bound."""


def title(metric: str) -> str:
    return {
        **COLUMNS,
        "membership_mink": "membership AUC, Min-K",
        "membership_zlib": "membership AUC, zlib",
    }.get(metric, metric.replace("_", " "))


def colour(comparison: Comparison) -> alt.Color:
    """One colour a model, the controls' fixed."""
    names = [a.name for a in comparison.artefacts if a.measurements or a.curve]
    others = iter(COLOURS * (1 + len(names) // len(COLOURS)))
    shades = [CONTROLS.get(a.kind) or next(others) for a in comparison.artefacts if a.name in names]
    return alt.Color("model:N", title=None, scale=alt.Scale(domain=names, range=shades))


def tradeoff(comparison: Comparison) -> alt.TopLevelMixin:
    """Forget quality (log10 p) against model utility: up and right is better."""
    rows = []
    for artefact in comparison.artefacts:
        quality, utility = artefact.figure("forget_quality"), artefact.figure("model_utility")
        if (
            quality.get("value") is not None
            and utility.get("value") is not None
            and quality["extra"].get("log10_p") is not None
        ):
            rows.append(
                {
                    "model": artefact.name,
                    "utility": utility["value"],
                    "low": utility["low"],
                    "high": utility["high"],
                    "log10 p": quality["extra"]["log10_p"],
                }
            )
    bottom = min([-2.0, *(1.08 * row["log10 p"] for row in rows)])
    top = -0.05 * bottom
    pixels = [
        (row["model"], row["utility"] * WIDTH, (top - row["log10 p"]) / (top - bottom) * HEIGHT)
        for row in rows
    ]
    found = places(pixels)
    rows = [{**row, "place": str(place)} for row, place in zip(rows, found)]
    base = alt.Chart(pd.DataFrame(rows, columns=["model", "utility", "low", "high", "log10 p", "place"]))
    scale = alt.Scale(domain=[bottom, top], nice=False)
    x = alt.X(
        "utility:Q",
        title="model utility (95 % interval)",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(tickCount=5),
    )
    y = alt.Y("log10 p:Q", title="forget quality, log₁₀ p (0: like the oracle)", scale=scale)
    shade = colour(comparison).legend(None)
    points = base.mark_point(filled=True, size=130, opacity=1).encode(
        x=x, y=y, color=shade, tooltip=["model", "utility", "log10 p"]
    )
    bars = base.mark_rule(opacity=0.5).encode(x="low:Q", x2="high:Q", y=y, color=shade)
    names = named(base.encode(x=x, y=y, color=shade), "model", found)
    return alt.layer(bars, points, *names).properties(
        width=WIDTH, height=HEIGHT, title="Forgetting against utility: up and right is better"
    )


def placed(measurement: Mapping[str, Any]) -> bool:
    return all(measurement.get(key) is not None for key in ("position", "position_low", "position_high"))


def positions(comparison: Comparison) -> alt.LayerChart:
    """Each metric on the axis oracle (0) → original (1), with its interval."""
    rows = [
        {
            "model": a.name,
            "metric": title(m["name"]),
            "position": m["position"],
            "low": m["position_low"],
            "high": m["position_high"],
        }
        for a in comparison.artefacts
        for m in a.measurements
        if placed(m)
    ]
    base = alt.Chart(pd.DataFrame(rows, columns=["model", "metric", "position", "low", "high"]))
    inside = [
        max(EDGES[0], min(-0.25, *(row["low"] for row in rows))),
        min(EDGES[1], max(1.25, *(row["high"] for row in rows))),
    ]
    scale = alt.Scale(domain=inside, nice=False, clamp=True)
    x = alt.X(
        "position:Q",
        title="oracle (0) → original (1), cut at −2 and 3",
        axis=alt.Axis(tickCount=6),
        scale=scale,
    )
    y, offset, shade = alt.Y("metric:N", title=None), alt.YOffset("model:N"), colour(comparison)
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x,
        y=y,
        yOffset=offset,
        color=shade,
        tooltip=["model", "metric", "position", "low", "high"],
    )
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", y=y, yOffset=offset, color=shade)
    ends = (
        alt.Chart(pd.DataFrame({"at": [0.0, 1.0]}))
        .mark_rule(strokeDash=[4, 4], color="#888")
        .encode(x="at:Q")
    )
    return (ends + bars + points).properties(
        width=WIDTH, height=alt.Step(12), title="Where each metric stands between oracle and original"
    )


def curves(comparison: Comparison) -> alt.FacetChart:
    """Each metric after every epoch, a panel a metric and a line a model."""
    rows = [
        {"model": a.name, "epoch": point["epoch"], "metric": title(name), "value": value}
        for a in comparison.artefacts
        for point in a.curve
        for name, value in point.items()
        if name != "epoch" and value is not None
    ]
    lines = (
        alt.Chart(pd.DataFrame(rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=colour(comparison),
            tooltip=["model", "epoch", "value"],
        )
        .properties(width=WIDTH // 2 - 40, height=170)
    )
    return (
        lines.facet(alt.Facet("metric:N", title=None), columns=2)
        .resolve_scale(y="independent")
        .properties(title="Epoch by epoch")
    )


def figures(comparison: Comparison) -> dict[str, alt.TopLevelMixin]:
    """The charts that the comparison has data for, by name."""
    found: dict[str, alt.TopLevelMixin] = {}
    if any(
        a.figure("forget_quality").get("value") is not None and a.figure("model_utility")
        for a in comparison.artefacts
    ):
        found["tradeoff"] = tradeoff(comparison)
    if any(placed(m) for a in comparison.artefacts for m in a.measurements):
        found["positions"] = positions(comparison)
    if any(a.curve for a in comparison.artefacts):
        found["curves"] = curves(comparison)
    return found


def save_png(chart: alt.TopLevelMixin, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.save(str(path), scale_factor=2)
