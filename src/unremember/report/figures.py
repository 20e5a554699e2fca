"""Figures: interactive in the page, PNG beside it."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd

from unremember.report.comparison import Comparison
from unremember.report.table import COLUMNS

PALETTE = alt.Scale(domain=["original", "oracle", "unlearned"], range=["#555555", "#009E73", "#0072B2"])


def tradeoff(comparison: Comparison) -> alt.LayerChart:
    """Forget quality (log10 p) against model utility: up and right is better."""
    rows = []
    for artefact in comparison.artefacts:
        quality, utility = artefact.figure("forget_quality"), artefact.figure("model_utility")
        if quality.get("value") is not None and utility.get("value") is not None:
            rows.append({"model": artefact.name, "kind": artefact.kind, "utility": utility["value"], "low": utility["low"],
                         "high": utility["high"], "log10 p": quality["extra"]["log10_p"]})  # fmt: skip
    base = alt.Chart(pd.DataFrame(rows, columns=["model", "kind", "utility", "low", "high", "log10 p"]))
    y = alt.Y("log10 p:Q", title="forget quality, log₁₀ p (0: like the oracle)")
    colour = alt.Color("kind:N", scale=PALETTE, title=None)
    points = base.mark_point(filled=True, size=130).encode(
        x=alt.X("utility:Q", title="model utility", scale=alt.Scale(domain=[0, 1])), y=y, color=colour, tooltip=["model", "utility", "log10 p"],
    )  # fmt: skip
    bars = base.mark_rule(opacity=0.5).encode(x="low:Q", x2="high:Q", y=y, color=colour)
    names = base.mark_text(align="left", dx=10, dy=-8).encode(x="utility:Q", y=y, text="model:N")
    return (bars + points + names).properties(width=520, height=320, title="Forgetting against utility")


def positions(comparison: Comparison) -> alt.LayerChart:
    """Each metric on the axis oracle (0) → original (1), with its interval."""
    rows = [
        {"model": a.name, "metric": COLUMNS.get(m["name"], m["name"]), "position": m["position"],
         "low": m["position_low"], "high": m["position_high"]}
        for a in comparison.artefacts for m in a.measurements if m.get("position") is not None
    ]  # fmt: skip
    base = alt.Chart(pd.DataFrame(rows, columns=["model", "metric", "position", "low", "high"]))
    y, offset, colour = alt.Y("metric:N", title=None), alt.YOffset("model:N"), alt.Color("model:N", title=None)
    points = base.mark_point(filled=True, size=90).encode(
        x=alt.X("position:Q", title="oracle (0) → original (1)"), y=y, yOffset=offset, color=colour,
        tooltip=["model", "metric", "position", "low", "high"],
    )  # fmt: skip
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", y=y, yOffset=offset, color=colour)
    ends = alt.Chart(pd.DataFrame({"at": [0.0, 1.0]})).mark_rule(strokeDash=[4, 4], color="#888").encode(x="at:Q")
    return (ends + bars + points).properties(width=520, height=320, title="Where each metric stands between oracle and original")


def figures(comparison: Comparison) -> dict[str, alt.LayerChart]:
    return {"tradeoff": tradeoff(comparison), "positions": positions(comparison)}


def save_png(chart: alt.LayerChart, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.save(str(path), scale_factor=2)
