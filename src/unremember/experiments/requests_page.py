"""The table, the figure and the page of a stream of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from unremember.experiments.requests import StepCell, Stream
from unremember.files import write_text
from unremember.report.figures import CONTROL_COLOURS
from unremember.report.table import COLUMN_TITLES, MARKS_LEGEND, VERDICT_MARKS, format_value, name_of_collapse

Steps = Sequence[tuple[str, Sequence[StepCell]]]
"""The cells of every method's steps."""


def figure_rows(streams: Steps) -> list[dict[str, Any]]:
    """Return a row for every figure: method, step, request, metric, value, controls, verdict, note."""
    rows = []
    for method, cells in streams:
        for cell in cells:
            for i, figures in enumerate(cell["figures"].values()):
                for metric, row in figures.items():
                    rows.append(
                        {
                            "method": method,
                            "step": cell["step"],
                            "request": i + 1,
                            "metric": metric,
                            "value": row["value"],
                            "oracle": mean_value(row["controls"]["oracle"]),
                            "original": row["controls"]["original"],
                            "verdict": row["verdict"],
                            "note": row["note"],
                        }
                    )
    return rows


def mean_value(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that exist; None where there are none."""
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def shown_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the heading of each metric, in the order of a comparison's table."""
    measured = {row["metric"] for row in rows}
    return {name: title for name, title in COLUMN_TITLES.items() if name in measured}


def requests_table(streams: Steps) -> str:
    """Return the Markdown table: controls on each request, then each request after every method's steps."""
    rows = figure_rows(streams)
    shown = shown_metrics(rows)
    lines = [
        ["", "step", "request", "epochs", *shown.values(), "note"],
        ["---", *["---:"] * (3 + len(shown)), "---"],
    ]
    for control in ("original", "oracle"):
        for request in sorted({row["request"] for row in rows}):
            values = {row["metric"]: row[control] for row in rows if row["request"] == request}
            figures = [format_value(values.get(name)) for name in shown]
            lines.append([control, "", str(request), "", *figures, ""])
    for method, cells in streams:
        for cell in cells:
            lines += step_lines(method, cell, shown)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def step_lines(method: str, cell: StepCell, shown: Mapping[str, str]) -> list[list[str]]:
    """Return a line for every request after one step; a step that collapsed has one line that says so."""
    if not cell["figures"]:
        return [[method, str(cell["step"]), "", "", *[""] * len(shown), cell["note"].replace("|", "/")]]
    missing = {"value": None, "verdict": "", "note": ""}
    lines = []
    for i, figures in enumerate(cell["figures"].values()):
        rows = [figures.get(name, missing) for name in shown]
        values = [format_value(row["value"]) + VERDICT_MARKS.get(row["verdict"], "") for row in rows]
        lines.append(
            [method, str(cell["step"]), str(i + 1), str(cell["epochs"]), *values, name_of_collapse(rows)]
        )
    return lines


def draw_requests(streams: Steps, title: str, path: Path) -> None:
    """Draw a row a metric and a column a method: each request from the step that forgot it on.

    The dashed line is the oracle on the first request.
    """
    rows = figure_rows(streams)
    shown = shown_metrics(rows)
    data = pd.DataFrame([{**row, "metric": shown[row["metric"]]} for row in rows if row["metric"] in shown])
    base = alt.Chart(data).encode(x=alt.X("step:O", title="step", axis=alt.Axis(labelAngle=0)))
    lines = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title=None), color=alt.Color("request:O", scale=alt.Scale(scheme="viridis"))
    )
    oracle = base.mark_rule(strokeDash=[4, 4], color=CONTROL_COLOURS["oracle"]).encode(
        x=alt.X(), y=alt.Y("mean(oracle):Q", title=None)
    )
    facets = (
        alt.layer(oracle, lines)
        .properties(width=170, height=120)
        .facet(
            row=alt.Row("metric:N", sort=list(shown.values()), title=None),
            column=alt.Column("method:N", sort=[method for method, _ in streams], title=None),
            title=title,
        )
        .resolve_scale(y="independent")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    facets.save(str(path), scale_factor=2)


def requests_page(stream: Stream, streams: Steps, out: Path) -> Path:
    """Write the page of a stream and its figure; return the page."""
    name = stream.name.replace(" ", "-")
    if any(cell["figures"] for _, cells in streams for cell in cells):
        draw_requests(streams, stream.name, out / f"requests-{name}.png")
    how, ends = "ever larger, each from the original (scaling)", "after all epochs"
    if stream.sequential:
        how = "one after another, each from the model of the step before it (sustainability)"
    if stream.stops:
        ends = "at the first epoch at which the request is known no better than by the oracle"
    settings = stream.settings
    oracles = ", ".join(f"`{oracle.weights[:12]}`" for oracle in stream.oracles)
    sizes = "; ".join(
        f"{i + 1}: {split.name}, {len(split['forget'])} rows" for i, split in enumerate(stream.requests)
    )
    text = f"""# Requests: {stream.name}

Requests {how}. A step ends {ends}, at most {settings.epochs}; learning rate {settings.lr:g}, batches of
{settings.batch_size}. After each step every request up to it is measured again. Original
`{stream.original.weights[:12]}`; oracles {oracles}. Requests: {sizes}.

{requests_table(streams)}

{MARKS_LEGEND}

![{stream.name}](requests-{name}.png)
"""
    write_text(out / f"requests-{name}.md", text)
    return out / f"requests-{name}.md"
