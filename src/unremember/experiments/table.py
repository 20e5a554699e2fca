"""Tables and figures of cells: the mean over the confirmatory seeds, with the least and the greatest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from unremember.experiments.cells import KEPT, figure
from unremember.report.labels import named, places

TITLES = {
    "forget_quality": "forget quality (log₁₀ p)",
    "model_utility": "model utility",
    "probability": "forget probability",
    "extraction_strength": "extraction strength",
    "membership_loss": "membership AUC",
}
DIGITS = {"forget_quality": 1}
KINDS = {
    "original": "#555555",
    "oracle": "#009E73",
    "retain_descent": "#E69F00",
    "method": "#0072B2",
    "other methods": "#CCCCCC",
}
BLENDS = ["#0072B2", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D1F", "#7B4FA3"]
Cells = Sequence[Mapping[str, Any]]
X = alt.X("x:Q", title="model utility", scale=alt.Scale(zero=False, padding=20))
Y = alt.Y("y:Q", title="forget quality, log₁₀ p (0: like the oracle)")
FAINT = "faint: not every seed reached the target"
WIDTH, HEIGHT = 620, 420
SEAM = " · "
"""Between the blend, the sampling and the selection in the name of a crossed recipe."""


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """``mean (least … greatest)``, or a dash."""
    there = [v for v in values if v is not None]
    if not there:
        return "–"
    mean = f"{np.mean(there):z.{digits}f}"
    return mean if len(there) == 1 else f"{mean} ({min(there):z.{digits}f} … {max(there):z.{digits}f})"


def row(name: str, cells: Cells) -> list[str]:
    """A line of the table: the cells of one recipe."""
    done = [cell for cell in cells if cell["figures"]]
    if not done:
        return [name, cells[0].get("note", "–").replace("|", "/"), *[""] * (len(KEPT) + 1)]
    reached = sum(bool(cell["reached"]) for cell in cells)
    steps = spread([cell["steps"] for cell in done], 0) if done[0]["steps"] else "–"
    note = (
        "" if reached == len(cells) or name in KINDS else f" ({reached} of {len(cells)} reached the target)"
    )
    rate = f"{done[0]['rate']:g}" if done[0]["rate"] else "–"
    return [
        name + note,
        rate,
        steps,
        *[spread([figure(cell, key) for cell in done], DIGITS.get(key, 3)) for key in KEPT],
    ]


def markdown(rows: Sequence[tuple[str, Cells]]) -> str:
    head = ["", "rate", "steps", *[TITLES[key] for key in KEPT]]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *[row(name, cells) for name, cells in rows]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def bars_of(name: str, cells: Cells) -> dict[str, Any] | None:
    """A point of a figure: the mean utility (x) and forget quality (y) with their least and greatest."""
    quality = [v for cell in cells if (v := figure(cell, "forget_quality")) is not None]
    utility = [v for cell in cells if (v := figure(cell, "model_utility")) is not None]
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
    }


def clear(name: str, cells: Cells) -> float:
    """How opaque a point is: a control, or a recipe that every seed brought to the target, or another one."""
    return 1.0 if name in KINDS or all(cell["reached"] for cell in cells) else 0.25


def tradeoff(rows: Sequence[tuple[str, Cells]], title: str, path: Path, spotlight: str = "") -> None:
    """Forget quality against utility: a point a recipe, its bars from the least to the greatest of the seeds.

    With ``spotlight`` every other method is grey and has no name. Faint is what not every seed brought to the target.
    """
    points = []
    for name, cells in rows:
        shown = name in KINDS or spotlight in ("", name)
        kind = name if name in KINDS else "method" if shown else "other methods"
        if point := bars_of(name, cells):
            points.append({**point, "name": name if shown else "", "kind": kind, "seen": clear(name, cells)})
    left, right, low = (
        min(p["x0"] for p in points),
        max(p["x1"] for p in points),
        min(p["y0"] for p in points),
    )
    pixels = [
        (p["name"], WIDTH * (p["x"] - left) / (right - left or 1), HEIGHT * p["y"] / (low or 1))
        for p in points
    ]
    found = places(pixels)
    points = [{**point, "place": str(place)} for point, place in zip(points, found)]
    kinds = [kind for kind in KINDS if any(point["kind"] == kind for point in points)]
    colour = alt.Color(
        "kind:N", title=None, scale=alt.Scale(domain=kinds, range=[KINDS[kind] for kind in kinds])
    )
    base = alt.Chart(pd.DataFrame(points)).encode(
        x=X, y=Y, color=colour, opacity=alt.Opacity("seen:Q", scale=None)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = alt.layer(*spans(base), base.mark_point(filled=True, size=90), *named(base, "name", found))
    above = alt.Title(title, subtitle=FAINT, subtitleColor="#777777")
    drawn.properties(width=WIDTH, height=HEIGHT, title=above).save(
        str(path), scale_factor=1 if spotlight else 2
    )


def spans(base: alt.Chart) -> list[alt.Chart]:
    """The bars of the points, from the least to the greatest of the seeds."""
    bars = base.mark_rule(strokeWidth=0.7)
    return [bars.encode(x="x0:Q", x2="x1:Q"), bars.encode(y="y0:Q", y2="y1:Q")]


def crossing(rows: Sequence[tuple[str, Cells]], title: str, path: Path) -> None:
    """The seams crossed: a panel a selection, a colour a blend, a shape a sampling; the controls stand in every panel.

    Faint is what not every seed brought to the target.
    """
    points = []
    for name, cells in rows:
        blend, sampling, selection = name.split(SEAM) if SEAM in name else (name, "control", "")
        if point := bars_of(name, cells):
            points.append(
                {
                    **point,
                    "blend": blend,
                    "sampling": sampling,
                    "selection": selection,
                    "seen": clear(name, cells),
                }
            )
    panels = [selection for selection in dict.fromkeys(point["selection"] for point in points) if selection]
    data = pd.DataFrame(
        [
            {**point, "selection": panel}
            for point in points
            for panel in panels
            if point["selection"] in ("", panel)
        ]
    )
    blends, palette = list(dict.fromkeys(data["blend"])), iter(BLENDS)
    colours = [KINDS.get(blend) or next(palette) for blend in blends]
    colour = alt.Color("blend:N", sort=None, scale=alt.Scale(domain=blends, range=colours))
    base = alt.Chart(data).encode(x=X, y=Y, color=colour, opacity=alt.Opacity("seen:Q", scale=None))
    dots = base.mark_point(filled=True, size=80).encode(shape=alt.Shape("sampling:N", sort=None))
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = alt.layer(*spans(base), dots).properties(width=300, height=380)
    drawn.facet(column=alt.Column("selection:N", sort=panels), title=title).save(str(path), scale_factor=2)
