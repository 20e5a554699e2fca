"""What a sweep found, as a table, a page and a figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import yaml
from rich.markup import escape
from rich.table import Table

from unremember.experiments.sweep import Cell, front, recommended, whole
from unremember.experiments.table import KINDS, TITLES
from unremember.files import write_text
from unremember.report.table import SHORT, number
from unremember.report.table import cell as shown

MARKS = {"recommended": "★", "on the front": "●", "point": ""}
SHADES = {
    "original": KINDS["original"],
    "oracle": KINDS["oracle"],
    "recommended": "#D55E00",
    "on the front": "#0072B2",
    "point": "#BBBBBB",
}
CONFIRM = "The recommended point is the best of many, chosen by these very figures: read it again with another seed before it is believed."


@dataclasses.dataclass(frozen=True)
class Found:
    """The cells of a sweep's points (the best quality first) and of its controls.

    ``judges`` name the figures of forgetting and utility; a point is recommended only where its utility is ``least`` or more,
    which is ``floor`` of the original's; ``target`` is the forget probability at which points ended (None: they ran to the end).
    """

    title: str
    points: Sequence[Cell]
    controls: Sequence[Cell]
    judges: tuple[str, str]
    floor: float
    least: float
    target: float | None

    @property
    def best(self) -> Cell | None:
        return recommended(self.points, self.least)

    def kind(self, cell: Cell) -> str:
        if cell is self.best:
            return "recommended"
        return "on the front" if any(cell is one for one in front(self.points)) else "point"

    def tree(self) -> dict[str, Any]:
        """The whole as plain data."""
        there = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **there,
            "front": [cell["name"] for cell in front(self.points)],
            "recommended": self.best["name"] if self.best else None,
        }

    def verdict(self) -> str:
        """What is recommended, in one sentence."""
        if self.best:
            quality, utility, _ = titles(self)
            best = f"{quality} {self.best['quality']:.2f}, {utility} {self.best['utility']:.3f} (at least {self.least:.3f} is asked)"
            return f"recommended: {self.best['title']}: {best}"
        if not any(map(whole, self.points)):
            return "no point has figures of both forgetting and utility: the notes say why"
        most = max((cell["utility"] or 0.0 for cell in self.points), default=0.0)
        return (
            f"no point keeps {self.floor:g} of the original's utility ({self.least:.3f}): the most is {most:.3f}; "
            "lower --floor, or sweep smaller steps"
        )


def titles(found: Found, names: Mapping[str, str] = TITLES) -> list[str]:
    """The headings of quality, utility and forget probability."""
    forgetting, *rest = found.judges
    first = (
        names[forgetting] if forgetting == "forget_quality" else f"− distance to the oracle ({forgetting})"
    )
    return [first, *(names.get(name, name) for name in (*rest, "probability"))]


def lines(found: Found, spans: bool = False) -> list[list[str]]:
    """A line a point, then a line a control; with ``spans`` intervals stand beside what has one."""
    rows = [
        [str(i), MARKS[found.kind(cell)], *line(found, cell, spans)] for i, cell in enumerate(found.points, 1)
    ]
    return [*rows, *(["", "", *line(found, cell, spans)] for cell in found.controls)]


def line(found: Found, cell: Cell, spans: bool) -> list[str]:
    """A cell's own columns; what kept it from having figures stands beside its title."""
    note = f" ({cell['note']})" if cell["note"] else ""
    quality = "–" if cell["quality"] is None else f"{cell['quality']:.2f}"
    return [
        cell["title"] + note,
        quality + position(cell, found.judges[0]) * spans,
        number(cell["utility"]) + span(cell, found.judges[1]) * spans,
        number(cell["level"]) + span(cell, "probability") * spans,
        str(cell["steps"] or "–"),
    ]


def span(cell: Cell, name: str) -> str:
    """The interval of a figure, where it has one."""
    interval = shown(cell["figures"].get(name, {}))[1]
    return f" ({interval})" if interval else ""


def position(cell: Cell, name: str) -> str:
    """The interval of the position that the quality is the distance of; a test (forget quality) has none."""
    row = cell["figures"].get(name, {})
    ends = row.get("position_low"), row.get("position_high")
    return "" if name == "forget_quality" or None in ends else f" (position {ends[0]:.2f}–{ends[1]:.2f})"


def table(found: Found) -> Table:
    """The lines for the terminal."""
    made = Table(title=found.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(["", "", "point", *titles(found, SHORT), "steps"]):
        made.add_column(name, justify="right" if at > 2 else "left", overflow="fold")
    for row in lines(found):
        made.add_row(*map(escape, row))
    return made


def figure(found: Found) -> alt.TopLevelMixin:
    """Quality against utility: controls, points, the front as a line, the floor dashed. A number is the point's in the table."""
    points = [(c, found.kind(c), str(i)) for i, c in enumerate(found.points, 1)]
    ends = [(c, c["title"], c["title"]) for c in found.controls]
    rows = [
        (c["utility"], c["quality"], kind, c["title"], "" if kind == "point" else label)
        for c, kind, label in (*points, *ends)
        if whole(c)
    ]
    data = pd.DataFrame(rows, columns=["x", "y", "kind", "point", "label"])
    quality, utility, _ = titles(found)
    x, y = (
        alt.X("x:Q", title=utility, scale=alt.Scale(zero=False, padding=20)),
        alt.Y("y:Q", title=f"{quality}; 0: like the oracle"),
    )
    kinds = [kind for kind in SHADES if kind in set(data["kind"])]
    shade = alt.Color(
        "kind:N", title=None, scale=alt.Scale(domain=kinds, range=[SHADES[kind] for kind in kinds])
    )
    base = alt.Chart(data).encode(x=x, y=y)
    least = (
        alt.Chart(pd.DataFrame({"x": [found.least]}))
        .mark_rule(strokeDash=[4, 4], color="#888")
        .encode(x="x:Q")
    )
    edge = base.transform_filter(alt.FieldOneOfPredicate("kind", ["recommended", "on the front"])).mark_line(
        color="#0072B2", strokeWidth=0.8
    )
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(color=shade, tooltip=["point", "x", "y"])
    names = base.mark_text(align="left", dx=8, dy=-7, fontSize=11).encode(text="label:N")
    return alt.layer(least, edge, dots, names).properties(width=620, height=420, title=found.title)


def write(found: Found, text: str, folder: Path) -> None:
    """``sweep.json`` (``text``), the page ``sweep.md`` with its figure (PNG, and interactive HTML), ``best.yaml`` where a point is recommended."""
    write_text(folder / "sweep.json", text)
    chart = figure(found)
    chart.save(str(folder / "sweep.png"), scale_factor=2)
    chart.save(str(folder / "sweep.html"), inline=True)
    best = folder / "best.yaml"
    best.unlink(missing_ok=True)
    if found.best:
        write_text(
            best,
            f"# {found.verdict()}\n{yaml.safe_dump(dict(found.best['tree']), sort_keys=False, allow_unicode=True)}",
        )
    write_text(folder / "sweep.md", page(found))


def page(found: Found) -> str:
    """The page in Markdown."""
    rows = [
        ["", "", "point", *titles(found), "steps"],
        ["---", "---", "---", *["---:"] * 4],
        *lines(found, spans=True),
    ]
    told = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    ended = (
        f"A point ended where the forget answers' probability was {found.target:.3f} or less. "
        if found.target is not None
        else ""
    )
    use = f"`unremember forget -c best.yaml -o …` runs it again. {CONFIRM}" if found.best else ""
    parts = [
        f"# {found.title}",
        f"**{found.verdict()[0].upper()}{found.verdict()[1:]}.** {use}".strip(),
        f"{ended}★ is recommended, ● is on the front: no other point is as good in both figures and better in one.",
        told,
        "![quality against utility](sweep.png)",
    ]
    return "\n\n".join(parts) + "\n"
