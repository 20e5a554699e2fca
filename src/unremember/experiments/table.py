"""Tables and figures of cells: the mean over the confirmatory seeds, with the least and the greatest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from unremember.experiments.cells import figure_of_cell
from unremember.report.figures import CONTROL_COLOURS
from unremember.report.labels import label_layers, place_labels
from unremember.report.table import COLUMN_TITLES
from unremember.runs.matched import COMPARED_AUDITS

SEAM = " · "
"""Stands between the blend, the sampling and the selection in the name of a crossed recipe."""
Cells = Sequence[Mapping[str, Any]]
"""The cells of one recipe, a seed each."""

_DIGITS = {"forget_quality": 1}
_KINDS = {**CONTROL_COLOURS, "retain_descent": "#E69F00", "method": "#0072B2", "other methods": "#CCCCCC"}
_BLEND_COLOURS = ["#0072B2", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D1F", "#7B4FA3"]
_X = alt.X("x:Q", title="model utility", scale=alt.Scale(zero=False, padding=20))
_Y = alt.Y("y:Q", title="forget quality, log₁₀ p (0: like the oracle)")
_FAINT = "faint: not every seed reached the target"
_WIDTH, _HEIGHT = 620, 420


def spread_text(values: Sequence[float | None], digits: int = 3) -> str:
    """Return ``mean (least … greatest)``; a dash where there are no values."""
    measured = [value for value in values if value is not None]
    if not measured:
        return "–"
    mean = f"{np.mean(measured):z.{digits}f}"
    if len(measured) == 1:
        return mean
    return f"{mean} ({min(measured):z.{digits}f} … {max(measured):z.{digits}f})"


def recipe_row(name: str, cells: Cells) -> list[str]:
    """Return the table's row of one recipe."""
    measured = [cell for cell in cells if cell["figures"]]
    if not measured:
        return [name, cells[0].get("note", "–").replace("|", "/"), *[""] * (len(COMPARED_AUDITS) + 1)]
    reached, first = sum(bool(cell["reached"]) for cell in cells), measured[0]
    note = ""
    if reached < len(cells) and name not in _KINDS:
        note = f" ({reached} of {len(cells)} reached the target)"
    rate = f"{first['rate']:g}" if first["rate"] else "–"
    steps = spread_text([cell["steps"] for cell in measured], 0) if first["steps"] else "–"
    figures = [
        spread_text([figure_of_cell(cell, key) for cell in measured], _DIGITS.get(key, 3))
        for key in COMPARED_AUDITS
    ]
    return [name + note, rate, steps, *figures]


def cells_markdown(rows: Sequence[tuple[str, Cells]]) -> str:
    """Return the table in Markdown."""
    head = ["", "rate", "steps", *[COLUMN_TITLES[key] for key in COMPARED_AUDITS]]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    lines += [recipe_row(name, cells) for name, cells in rows]
    return "\n".join(f"| {' | '.join(texts)} |" for texts in lines)


def point_with_bars(name: str, cells: Cells) -> dict[str, Any] | None:
    """Return the mean utility (x) and forget quality (y), their least and greatest; None without figures."""
    quality = [v for cell in cells if (v := figure_of_cell(cell, "forget_quality")) is not None]
    utility = [v for cell in cells if (v := figure_of_cell(cell, "model_utility")) is not None]
    if not (quality and utility):
        return None
    return {
        "name": name,
        "x": np.mean(utility),
        "x0": min(utility),
        "x1": max(utility),
        "y": np.mean(quality),
        "y0": min(quality),
        "y1": max(quality),
        "opacity": opacity(name, cells),
    }


def opacity(name: str, cells: Cells) -> float:
    """Return how opaque a point is: faint where not every seed reached the target."""
    return 1.0 if name in _KINDS or all(cell["reached"] for cell in cells) else 0.25


def draw_tradeoff(rows: Sequence[tuple[str, Cells]], title: str, path: Path, spotlight: str = "") -> None:
    """Draw forget quality against utility: a point a recipe, with bars from the least to the greatest seed.

    Args:
        spotlight: The only method that has its colour and its name; "" for all.
    """
    points = []
    for name, cells in rows:
        shown = name in _KINDS or spotlight in ("", name)
        kind = name if name in _KINDS else "method" if shown else "other methods"
        if point := point_with_bars(name, cells):
            points.append({**point, "name": name if shown else "", "kind": kind})
    left, right = min(p["x0"] for p in points), max(p["x1"] for p in points)
    low = min(p["y0"] for p in points)
    pixels = [
        (p["name"], _WIDTH * (p["x"] - left) / (right - left or 1), _HEIGHT * p["y"] / (low or 1))
        for p in points
    ]
    label_places = place_labels(pixels)
    points = [{**point, "place": str(place)} for point, place in zip(points, label_places, strict=True)]
    kinds = [kind for kind in _KINDS if any(point["kind"] == kind for point in points)]
    scale = alt.Scale(domain=kinds, range=[_KINDS[kind] for kind in kinds])
    base = alt.Chart(pd.DataFrame(points)).encode(
        x=_X,
        y=_Y,
        color=alt.Color("kind:N", title=None, scale=scale),
        opacity=alt.Opacity("opacity:Q", scale=None),
    )
    dots, labels = base.mark_point(filled=True, size=90), label_layers(base, "name", label_places)
    heading = alt.Title(title, subtitle=_FAINT, subtitleColor="#777777")
    chart = alt.layer(*bar_layers(base), dots, *labels)
    chart = chart.properties(width=_WIDTH, height=_HEIGHT, title=heading)
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.save(str(path), scale_factor=1 if spotlight else 2)


def bar_layers(base: alt.Chart) -> list[alt.Chart]:
    """Return the bars of the points, from the least to the greatest of the seeds."""
    bars = base.mark_rule(strokeWidth=0.7)
    return [bars.encode(x="x0:Q", x2="x1:Q"), bars.encode(y="y0:Q", y2="y1:Q")]


def draw_crossing(rows: Sequence[tuple[str, Cells]], title: str, path: Path) -> None:
    """Draw the crossed seams: a panel a selection, a colour a blend, a shape a sampling.

    The controls stand in every panel.
    """
    points = []
    for name, cells in rows:
        blend, sampling, selection = name.split(SEAM) if SEAM in name else (name, "control", "")
        if point := point_with_bars(name, cells):
            points.append({**point, "blend": blend, "sampling": sampling, "selection": selection})
    panels = list(dict.fromkeys(point["selection"] for point in points if point["selection"]))
    in_panels = []
    for point in points:
        own = [panel for panel in panels if point["selection"] in ("", panel)]
        in_panels += [{**point, "selection": panel} for panel in own]
    data = pd.DataFrame(in_panels)
    blends, palette = list(dict.fromkeys(data["blend"])), iter(_BLEND_COLOURS)
    colours = [_KINDS.get(blend) or next(palette) for blend in blends]
    base = alt.Chart(data).encode(
        x=_X,
        y=_Y,
        color=alt.Color("blend:N", sort=None, scale=alt.Scale(domain=blends, range=colours)),
        opacity=alt.Opacity("opacity:Q", scale=None),
    )
    dots = base.mark_point(filled=True, size=80).encode(shape=alt.Shape("sampling:N", sort=None))
    chart = alt.layer(*bar_layers(base), dots).properties(width=300, height=380)
    facets = chart.facet(column=alt.Column("selection:N", sort=panels), title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    facets.save(str(path), scale_factor=2)
