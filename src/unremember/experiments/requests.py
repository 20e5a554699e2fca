"""Streams of requests, after MUSE (arXiv 2407.06460): ever larger ones (C5) and one after another (C6).

A sequential stream starts each step from the model that the step before it saved, a growing one from the original. After every
step all requests up to it are measured again, so that what comes back later is seen.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from unremember import api
from unremember.data.split import Split
from unremember.engine.settings import Settings
from unremember.errors import Collapsed
from unremember.experiments.cells import kept
from unremember.experiments.table import KINDS
from unremember.files import write_text
from unremember.models.load import load_model, save_model
from unremember.observe.store import Store
from unremember.report.table import COLUMNS, MARKS, READ, fallen, number

Cell = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Stream:
    """Requests, a split each, with the model that learned them all, its oracles and the loop's settings.

    Where ``stops``, a step ends at the first look, once an epoch, at which the forget set is known no better than by the oracles.
    """

    name: str
    requests: Sequence[Split]
    sequential: bool
    original: api.Result
    oracles: tuple[api.Result, ...]
    settings: Settings
    stops: bool = True

    @cached_property
    def digest(self) -> str:
        """What decides every step beside its method, its start and its requests."""
        return f"{self.original.digest} {[o.digest for o in self.oracles]} {self.settings} {self.stops}"


def run(stream: Stream, method: str, folder: Path) -> list[Cell]:
    """The cells of a method's steps: each read from ``folder`` where it is there, else run, measured and written.

    A collapse is a recorded result; a sequential stream ends there.
    """
    cells: list[Cell] = []
    digest, start = stream.original.digest, partial(copy.deepcopy, stream.original.model)
    for at in range(len(stream.requests)):
        cell, model = step(stream, method, at, digest, start, folder)
        cells.append(cell)
        if stream.sequential:
            if not cell["digest"]:
                break
            digest, start = cell["digest"], partial(load_model, model)
    return cells


def step(
    stream: Stream, method: str, at: int, digest: str, start: Callable[[], Any], folder: Path
) -> tuple[Cell, Path]:
    """Step ``at`` (0-based) of a method from the model that ``start`` makes, of this digest: its cell, and the folder of its model."""
    asked = stream.requests[: at + 1]
    identity = hashlib.sha256(
        f"{stream.digest} {method} {digest} {[split.digest for split in asked]}".encode()
    ).hexdigest()
    home = folder / f"{method}-{at + 1}-{identity[:12]}"
    if there := kept(home / "cell.json", identity):
        return there, home / "model"
    task, split, began = stream.original.task, asked[-1], time.monotonic()
    enough = known_as_to_the_oracles(stream, split, folder)
    cell: dict[str, Any] = {
        "identity": identity,
        "method": method,
        "step": at + 1,
        "request": split.name,
        "digest": "",
        "figures": {},
        "note": "",
    }
    try:
        made = api.forget(
            start(),
            split,
            method,
            tokenizer=task.tokenizer,
            template=task.template,
            folder=home,
            watch=lambda model, _: stream.stops and enough(model),
            **dataclasses.asdict(stream.settings),
        )
        save_model(made.model, task.tokenizer, home / "model")
        cell |= {
            "digest": made.digest,
            "epochs": epochs(home),
            "reached": enough(made.model),
            "figures": {one.name: measured(stream, made, one, folder) for one in asked},
        }
    except Collapsed as error:
        cell["note"] = f"collapsed: {error}"
    cell["seconds"] = round(time.monotonic() - began, 1)
    write_text(home / "cell.json", json.dumps(cell, indent=1))
    for leftover in ("checkpoint", "reference"):
        shutil.rmtree(home / leftover, ignore_errors=True)
    return cell, home / "model"


def epochs(home: Path) -> int:
    """Epochs begun, from the log of a run."""
    return math.ceil(json.loads((home / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["epoch"])


def known_as_to_the_oracles(stream: Stream, split: Split, folder: Path) -> Callable[[Any], bool]:
    """Whether a model knows the forget set no better than the oracles do: MUSE's choice of a checkpoint, by the questions on the forget
    set, or by its passages where there are none."""
    audit = api.audit_registry.make(
        "knowledge_memorisation" if "knowmem" in split else "verbatim_memorisation"
    )
    store = Store(folder / "observations")

    def level(model: Any) -> float:
        return float(
            audit.measure(
                store.observe(model, stream.original.task, split, audit.wants(split), quiet=True), []
            ).value
        )

    bound = sum(level(oracle.model) for oracle in stream.oracles) / len(stream.oracles)
    return lambda model: level(model) <= bound


def measured(stream: Stream, result: api.Result, split: Split, folder: Path) -> dict[str, Any]:
    """The measurements of a request by name."""
    card = api.audit(
        result,
        split,
        oracle=stream.oracles,
        original=stream.original,
        store=folder / "observations",
        quiet=True,
    )
    return {m.name: m.row() for m in card}


def rows(streams: Sequence[tuple[str, Sequence[Cell]]]) -> list[dict[str, Any]]:
    """A figure a row: method, step, request (its number), metric, value, what the oracles and the original have, verdict, note."""
    return [
        {
            "method": method,
            "step": cell["step"],
            "request": at + 1,
            "name": request,
            "metric": name,
            "value": row["value"],
            "oracle": mean(row["controls"]["oracle"]),
            "original": row["controls"]["original"],
            "verdict": row["verdict"],
            "note": row["note"],
        }
        for method, cells in streams
        for cell in cells
        for at, (request, figures) in enumerate(cell["figures"].items())
        for name, row in figures.items()
    ]


def mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def metrics(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Column by metric, in the order of the comparison's table."""
    return {name: title for name, title in COLUMNS.items() if any(row["metric"] == name for row in found)}


def table(streams: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """Markdown: the controls on each request, then after every step of every method each request so far."""
    found = rows(streams)
    shown = metrics(found)
    lines = [
        ["", "step", "request", "epochs", *shown.values(), "note"],
        ["---", *["---:"] * (3 + len(shown)), "---"],
    ]
    for control in ("original", "oracle"):
        for request in sorted({row["request"] for row in found}):
            of = {row["metric"]: row[control] for row in found if row["request"] == request}
            lines.append([control, "", str(request), "", *(number(of.get(name)) for name in shown), ""])
    for method, cells in streams:
        for cell in cells:
            lines += lines_of(method, cell, shown)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lines_of(method: str, cell: Cell, shown: Mapping[str, str]) -> list[list[str]]:
    """A line a request after one step; a step that collapsed has one line that says so."""
    if not cell["figures"]:
        return [[method, str(cell["step"]), "", "", *[""] * len(shown), cell["note"].replace("|", "/")]]
    lines = []
    for at, figures in enumerate(cell["figures"].values()):
        of = [figures.get(name, {"value": None, "verdict": "", "note": ""}) for name in shown]
        values = [number(row["value"]) + MARKS.get(row["verdict"], "") for row in of]
        lines.append([method, str(cell["step"]), str(at + 1), str(cell["epochs"]), *values, fallen(of)])
    return lines


def figure(streams: Sequence[tuple[str, Sequence[Cell]]], title: str, path: Path) -> None:
    """A row a metric, a column a method: each request from the step that forgot it on; dashed is the oracle on the first request."""
    found = rows(streams)
    shown = metrics(found)
    data = pd.DataFrame([{**row, "metric": shown[row["metric"]]} for row in found if row["metric"] in shown])
    base = alt.Chart(data).encode(x=alt.X("step:O", title="step", axis=alt.Axis(labelAngle=0)))
    lines = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title=None), color=alt.Color("request:O", scale=alt.Scale(scheme="viridis"))
    )
    oracle = base.mark_rule(strokeDash=[4, 4], color=KINDS["oracle"]).encode(
        x=alt.X(), y=alt.Y("mean(oracle):Q", title=None)
    )
    drawn = (
        alt.layer(oracle, lines)
        .properties(width=170, height=120)
        .facet(
            row=alt.Row("metric:N", sort=list(shown.values()), title=None),
            column=alt.Column("method:N", sort=[m for m, _ in streams], title=None),
            title=title,
        )
        .resolve_scale(y="independent")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(str(path), scale_factor=2)


def page(stream: Stream, streams: Sequence[tuple[str, Sequence[Cell]]], out: Path) -> Path:
    """Write the page of a stream and its figure into ``out``."""
    name = stream.name.replace(" ", "-")
    if any(cell["figures"] for _, cells in streams for cell in cells):
        figure(streams, stream.name, out / f"requests-{name}.png")
    how = (
        "one after another, each from the model of the step before it (sustainability)"
        if stream.sequential
        else "ever larger, each from the original (scaling)"
    )
    ends = (
        "at the first epoch at which the request is known no better than by the oracle"
        if stream.stops
        else "after all epochs"
    )
    sizes = "; ".join(
        f"{at + 1}: {split.name}, {len(split['forget'])} rows" for at, split in enumerate(stream.requests)
    )
    text = f"""# Requests: {stream.name}

Requests {how}. A step ends {ends}, at most {stream.settings.epochs}; learning rate {stream.settings.lr:g}, batches of
{stream.settings.batch_size}. After each step every request up to it is measured again. Original `{stream.original.digest[:12]}`; oracles
{", ".join(f"`{o.digest[:12]}`" for o in stream.oracles)}. Requests: {sizes}.

{table(streams)}

{READ}

![{stream.name}](requests-{name}.png)
"""
    write_text(out / f"requests-{name}.md", text)
    return out / f"requests-{name}.md"
