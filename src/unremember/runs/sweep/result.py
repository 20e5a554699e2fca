"""What a sweep found: the front, the recommended point, and both as a table, a page and a figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import yaml
from rich.table import Table

from unremember.errors import printable
from unremember.files import write_text
from unremember.report.comparison import strict_json
from unremember.report.escaping import markdown_text, terminal_text
from unremember.report.figures import CONTROL_COLOURS
from unremember.report.page import write_chart_page
from unremember.report.table import COLUMN_TITLES, SHORT_TITLES, format_value
from unremember.report.table import cell_texts as figure_texts
from unremember.runs.sweep.axes import Cell

_MARKS = {"recommended": "★", "on the front": "●", "point": ""}
_SHADES = {**CONTROL_COLOURS, "recommended": "#D55E00", "on the front": "#0072B2", "point": "#BBBBBB"}
CONFIRM = (
    "The recommended point is the best of many, chosen by these very figures: measure it again with another "
    "seed before you rely on it."
)
"""What must be said of a recommendation."""


def pareto_front(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that no other one beats, the best quality first.

    A cell beats another one where it is at least as good in quality and in utility, and better in one of
    them.
    """
    complete = [cell for cell in cells if has_figures(cell)]
    ordered = sorted(complete, key=lambda cell: (cell["quality"], cell["utility"]), reverse=True)
    return [cell for cell in ordered if not any(beats(rival, cell) for rival in ordered)]


def has_figures(cell: Cell) -> bool:
    """Return whether a cell has both a quality and a utility."""
    return cell["quality"] is not None and cell["utility"] is not None


def beats(rival: Cell, cell: Cell) -> bool:
    """Return whether one cell is at least as good in both figures, and better in one."""
    theirs, own = (rival["quality"], rival["utility"]), (cell["quality"], cell["utility"])
    return theirs != own and theirs[0] >= own[0] and theirs[1] >= own[1]


def recommended_point(cells: Sequence[Cell], least: float) -> Cell | None:
    """Return the best quality on the front whose utility is at least ``least``; None where there is none."""
    return next((cell for cell in pareto_front(cells) if cell["utility"] >= least), None)


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The cells of a sweep's points (the best quality first) and of its controls.

    Args:
        judges: The names of the figures of forgetting and of utility.
        floor: The share of the original's utility that a recommended point keeps.
        least: The utility that this is.
        target: The forget probability at which points ended; None: they ran to their end.
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
        """The recommended point."""
        return recommended_point(self.points, self.least)

    def kind(self, cell: Cell) -> str:
        """Return whether a point is recommended, on the front, or neither."""
        if cell is self.best:
            return "recommended"
        return "on the front" if any(cell is point for point in pareto_front(self.points)) else "point"

    def tree(self) -> dict[str, Any]:
        """Return the whole as plain data."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **fields,
            "front": [cell["name"] for cell in pareto_front(self.points)],
            "recommended": self.best["name"] if self.best else None,
        }

    def text(self) -> str:
        """Return the whole as JSON."""
        return strict_json(self.tree())

    def verdict(self) -> str:
        """Say in one sentence what is recommended."""
        if self.best:
            quality, utility, _ = headings(self)
            figures = f"{quality} {self.best['quality']:.2f}, {utility} {self.best['utility']:.3f}"
            return f"recommended: {self.best['title']}: {figures} (at least {self.least:.3f} is required)"
        if not any(map(has_figures, self.points)):
            return "no point has figures of both forgetting and utility: the notes say why"
        most = max((cell["utility"] or 0.0 for cell in self.points), default=0.0)
        return (
            f"no point keeps {self.floor:g} of the original's utility ({self.least:.3f}): the most is "
            f"{most:.3f}; lower --floor, or sweep smaller steps"
        )


def headings(result: SweepResult, names: Mapping[str, str] = COLUMN_TITLES) -> list[str]:
    """Return the headings of quality, utility and forget probability."""
    forgetting, utility = result.judges
    first = (
        names[forgetting] if forgetting == "forget_quality" else f"− distance to the oracle ({forgetting})"
    )
    return [first, *(names.get(name, name) for name in (utility, "probability"))]


def table_rows(result: SweepResult, spans: bool = False) -> list[list[str]]:
    """Return a row for each point and each control; with ``spans``, intervals stand beside the figures."""
    rows = []
    for number_, cell in enumerate(result.points, 1):
        rows.append([str(number_), _MARKS[result.kind(cell)], *figure_columns(result, cell, spans)])
    return [*rows, *(["", "", *figure_columns(result, cell, spans)] for cell in result.controls)]


def figure_columns(result: SweepResult, cell: Cell, spans: bool) -> list[str]:
    """Return a cell's own columns; what kept it from having figures stands beside its title."""
    note = f" ({cell['note']})" if cell["note"] else ""
    quality = "–" if cell["quality"] is None else f"{cell['quality']:.2f}"
    return [
        cell["title"] + note,
        quality + position_interval(cell, result.judges[0]) * spans,
        format_value(cell["utility"]) + figure_interval(cell, result.judges[1]) * spans,
        format_value(cell["level"]) + figure_interval(cell, "probability") * spans,
        str(cell["steps"] or "–"),
    ]


def figure_interval(cell: Cell, name: str) -> str:
    """Return the interval of a figure in brackets; "" where it has none."""
    interval = figure_texts(cell["figures"].get(name, {}))[1]
    return f" ({interval})" if interval else ""


def position_interval(cell: Cell, name: str) -> str:
    """Return the interval of the position whose distance the quality is; a test (forget quality) has none."""
    row = cell["figures"].get(name, {})
    low, high = row.get("position_low"), row.get("position_high")
    if name == "forget_quality" or low is None or high is None:
        return ""
    return f" (position {low:.2f}–{high:.2f})"


def sweep_table(result: SweepResult) -> Table:
    """Return the table for the terminal."""
    table = Table(
        title=terminal_text(result.title), title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for i, name in enumerate(["", "", "point", *headings(result, SHORT_TITLES), "steps"]):
        table.add_column(name, justify="right" if i > 2 else "left", overflow="fold")
    for row in table_rows(result):
        table.add_row(*map(terminal_text, row))
    return table


def sweep_figure(result: SweepResult) -> alt.TopLevelMixin:
    """Draw quality against utility: controls, points, the front as a line, the floor dashed.

    A point is labelled by its number in the table.
    """
    points = [(cell, result.kind(cell), str(i)) for i, cell in enumerate(result.points, 1)]
    controls = [(cell, cell["title"], cell["title"]) for cell in result.controls]
    rows = [
        (cell["utility"], cell["quality"], kind, printable(cell["title"]), "" if kind == "point" else label)
        for cell, kind, label in (*points, *controls)
        if has_figures(cell)
    ]
    data = pd.DataFrame(rows, columns=["x", "y", "kind", "point", "label"])
    quality, utility, _ = headings(result)
    x = alt.X("x:Q", title=utility, scale=alt.Scale(zero=False, padding=20))
    y = alt.Y("y:Q", title=f"{quality}; 0: like the oracle")
    kinds = [kind for kind in _SHADES if kind in set(data["kind"])]
    scale = alt.Scale(domain=kinds, range=[_SHADES[kind] for kind in kinds])
    base = alt.Chart(data).encode(x=x, y=y)
    floor = alt.Chart(pd.DataFrame({"x": [result.least]})).encode(x="x:Q")
    floor = floor.mark_rule(strokeDash=[4, 4], color="#888")
    on_front = alt.FieldOneOfPredicate("kind", ["recommended", "on the front"])
    edge = base.transform_filter(on_front).mark_line(color="#0072B2", strokeWidth=0.8)
    dots = base.mark_point(filled=True, size=90, opacity=1)
    dots = dots.encode(color=alt.Color("kind:N", title=None, scale=scale), tooltip=["point", "x", "y"])
    labels = base.mark_text(align="left", dx=8, dy=-7, fontSize=11).encode(text="label:N")
    return alt.layer(floor, edge, dots, labels).properties(width=620, height=420, title=result.title)


def save_sweep(result: SweepResult, folder: Path) -> None:
    """Write ``sweep.json``, the page ``sweep.md`` and its figure (PNG, and interactive HTML).

    Where a point is recommended, its configuration is written to ``best.yaml``.
    """
    write_text(folder / "sweep.json", result.text())
    chart = sweep_figure(result)
    chart.save(str(folder / "sweep.png"), scale_factor=2)
    write_chart_page(chart, result.title, folder / "sweep.html")
    best = folder / "best.yaml"
    best.unlink(missing_ok=True)
    if result.best:
        config = yaml.safe_dump(dict(result.best["tree"]), sort_keys=False, allow_unicode=True)
        write_text(best, f"# {printable(result.verdict())}\n{config}")
    write_text(folder / "sweep.md", sweep_page(result))


def sweep_page(result: SweepResult) -> str:
    """Return the page in Markdown."""
    rows = [
        ["", "", "point", *headings(result), "steps"],
        ["---", "---", "---", *["---:"] * 4],
        *table_rows(result, spans=True),
    ]
    table = "\n".join(f"| {' | '.join(markdown_text(text) for text in row)} |" for row in rows)
    verdict, ended, use = result.verdict(), "", ""
    if result.target is not None:
        ended = f"A point ended where the forget answers' probability was {result.target:.3f} or less. "
    if result.best:
        use = f"`unremember forget -c best.yaml -o …` runs it again. {CONFIRM}"
    parts = [
        f"# {markdown_text(result.title)}",
        f"**{markdown_text(verdict[0].upper() + verdict[1:])}.** {use}".strip(),
        f"{ended}★ is recommended, ● is on the front: no other point is as good in both figures and better "
        "in one.",
        table,
        "![quality against utility](sweep.png)",
    ]
    return "\n\n".join(parts) + "\n"
