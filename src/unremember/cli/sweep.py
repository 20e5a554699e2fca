"""``sweep``: many points of one configuration, forgotten and measured beside the same controls, on Ray."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unremember.cli.compare import console
from unremember.cli.config import SETTINGS, RunConfig, checked, numbered, put, read_tree, read_value
from unremember.cli.folder import notice, result_of, split_of, write_card
from unremember.cli.forget import check_parts, forget_run
from unremember.data.split import Split
from unremember.engine.loop import Watch
from unremember.errors import Collapsed, ConfigError, DataError, ModelError
from unremember.experiments import front, sweep
from unremember.experiments.cells import kept, level
from unremember.experiments.sweep import RANGE, Beside, Values
from unremember.experiments.workers import Workers, workers
from unremember.files import write_text
from unremember.models.load import quiet
from unremember.observe.store import Store
from unremember.report.comparison import plain
from unremember.tasks.language import LanguageTask

FIXED = ("model", "data", "template", "without", "only", "settings")
"""What cannot be swept: all points are measured beside the same controls."""
POINT = "point.json"


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all points share: the controls, how a model is asked, and where a run stops (None: at its end), looking after ``every`` steps."""

    beside: Beside
    task: LanguageTask
    stop: float | None
    every: int


@dataclasses.dataclass(frozen=True)
class Point:
    """One configuration: how the user would write it (``tree``), the hash of all that decides it, and its run folder."""

    title: str
    tree: Mapping[str, Any]
    config: RunConfig
    identity: str
    folder: Path


def sweep_run(
    words: Sequence[str],
    out: Path,
    oracles: Sequence[str],
    original: str,
    floor: float,
    count: int,
    matched: bool,
    every: int,
    address: str,
    as_json: bool,
) -> None:
    """Run the points, or what is left of them; print the table and write the page, the figure and ``best.yaml``."""
    tree, axes = asked(words, matched)
    if not tree.get("model"):
        raise ConfigError("a sweep needs model=…: a model folder, a run folder or a hub name")
    if not oracles:
        raise ConfigError(
            "a sweep needs --oracle, a model retrained without the forget set: make one with `unremember train --without forget …`"
        )
    values = sweep.ends(axes) if count else sweep.crossed(axes)
    for one in values:
        check_parts(config_of(tree, one))
    base = config_of(tree, values[0])
    split = split_of(base.data)
    shared = observed(
        split, original or base.model, oracles, base.template, out / "observations", matched, every
    )
    ends = controls(shared.beside)
    if floor and not ends[0]["utility"]:
        raise ConfigError(
            "the original has no utility of which a share could be kept: --floor 0 recommends by forgetting alone"
        )
    least = floor * (ends[0]["utility"] or 0.0)
    with workers(address) as there:
        run = lambda some: run_points(
            there, shared, [point_of(shared, tree, one, out / "points") for one in some]
        )  # noqa: E731
        cells = (
            sweep.searched(axes, count, base.settings.seed, least, there.slots, run) if count else run(values)
        )
    cells = sorted({cell["name"]: cell for cell in cells}.values(), key=worth, reverse=True)
    found = front.Found(
        f"Sweep on {split.name}: {len(cells)} points",
        cells,
        ends,
        shared.beside.judges,
        floor,
        least,
        shared.stop,
    )
    text = plain(found.tree())
    front.write(found, text, out)
    if as_json:
        print(text)
        return
    console.print(front.table(found))
    console.print(found.verdict(), markup=False, highlight=False)
    notice(f"page: {out / 'sweep.md'}")
    if found.best:
        notice(f"configuration: {out / 'best.yaml'}. {front.CONFIRM}")


def asked(words: Sequence[str], matched: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the configuration that all points share, the axes) of a file, ``key=value`` and ``sweep.key=[…]``; the later word wins."""
    files, keys = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    if len(files) > 1:
        raise ConfigError(
            f"one configuration is swept, not {len(files)} ({', '.join(files)}): settings are key=value"
        )
    swept = [key for key in keys if key.startswith("sweep.")]
    tree = read_tree(Path(files[0]) if files else None, {}, [key for key in keys if key not in swept])
    given = tree.pop("sweep", {})
    if not isinstance(given, dict):
        raise ConfigError("sweep: holds keys and their points, such as lr: [1e-4, 1e-3]")
    for key, _, text in (word.removeprefix("sweep.").partition("=") for word in swept):
        given[key] = numbered(read_value(key, text))
    if not given:
        raise ConfigError("nothing is swept: give sweep.lr=[1e-4,1e-3], or a block `sweep:` in the file")
    for key in given:
        if (root := str(key).split(".")[0]) in FIXED:
            raise ConfigError(
                f"sweep.{key}: {root} cannot be swept, for all points are measured beside the same controls"
            )
    for key, value in tree.items():
        if (isinstance(value, list) and key in SETTINGS) or (
            isinstance(value, str) and RANGE.fullmatch(value)
        ):
            raise ConfigError(
                f"{key}: the points of a sweep stand under sweep: sweep.{key}={str(value).replace(' ', '')}"
            )
    if matched and ("schedule" in given or tree.setdefault("schedule", "constant") != "constant"):
        raise ConfigError(
            "--matched ends a run early, so its rate cannot fall towards the end: schedule=constant, or leave it out"
        )
    return tree, {str(key): sweep.axis(key, value) for key, value in given.items()}


def tree_of(tree: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """The configuration with a point's values; a whole part before its parameters."""
    made = copy.deepcopy(dict(tree))
    for key in sorted(values, key=lambda key: key.count(".")):
        put(made, key.split("."), copy.deepcopy(values[key]))
    return made


def config_of(tree: Mapping[str, Any], values: Values) -> RunConfig:
    return checked(tree_of(tree, values))


def observed(
    split: Split,
    original: str,
    oracles: Sequence[str],
    template: str,
    folder: Path,
    matched: bool,
    every: int,
) -> Shared:
    """The controls, observed once: no point holds more models in memory than its own run."""
    quiet()
    store, wants, seen = Store(folder), sweep.wanted(split), []
    for name in (original, *oracles):
        result = result_of(name, template)
        seen.append((store.observe(result.model, result.task, split, wants), result.task))
    (first, task), *retrained = seen
    beside = Beside(split, first, tuple(one for one, _ in retrained))
    return Shared(beside, task, beside.target if matched else None, every)


def controls(beside: Beside) -> list[dict[str, Any]]:
    """The cells of the original and the oracles. On an axis of positions they are its ends."""
    found = []
    for (name, end), figures in zip(
        (("original", -1.0), *(("oracle", 0.0) for _ in beside.oracles)), beside.ends
    ):
        cell = beside.cell(figures)
        found.append(
            {
                **cell,
                "title": name,
                "steps": 0,
                "note": "",
                "quality": end if cell["quality"] is None else cell["quality"],
            }
        )
    return found


def worth(cell: Mapping[str, Any]) -> tuple[bool, float, float]:
    return cell["quality"] is not None, cell["quality"] or 0.0, cell["utility"] or 0.0


def point_of(shared: Shared, tree: Mapping[str, Any], values: Values, folder: Path) -> Point:
    """The point of some values, in a folder that is named after them."""
    mine, config = tree_of(tree, values), config_of(tree, values)
    identity = sweep.identity(shared.beside, config.model_dump(mode="json"), shared.stop, shared.every)
    return Point(sweep.titled(values), mine, config, identity, sweep.place(folder, values, identity))


def run_points(there: Workers, shared: Shared, points: Sequence[Point]) -> list[dict[str, Any]]:
    """The cells of some points, in their order: what is finished is read, not run, and a point that is there twice runs once."""
    cells = {point.folder: kept(point.folder / POINT, point.identity) for point in points}
    left = list({point.folder: point for point in points if cells[point.folder] is None}.values())
    if left:
        cells |= zip([point.folder for point in left], there.run("points", run_point, shared, left))
    return [cell for point in points if (cell := cells[point.folder])]


def watch(shared: Shared) -> Watch | None:
    """What ends a run at matched forgetting."""
    stop = shared.stop
    return (
        None if stop is None else lambda model, step: level(model, shared.task, shared.beside.split) <= stop
    )


def run_point(shared: Shared, point: Point) -> dict[str, Any]:
    """Forget and measure one point. A collapse, and what the data or the model lack, are recorded results."""
    quiet()
    torch.set_num_threads(1)
    beside, folder, began = shared.beside, point.folder, time.monotonic()
    cell = {
        "identity": point.identity,
        "name": folder.name,
        "title": point.title,
        "tree": point.tree,
        "steps": 0,
        **beside.cell({}),
    }
    try:
        forget_run(point.config, folder, watch(shared), shared.every)
    except Collapsed as error:
        cell["note"] = f"collapsed: {error}"
    except (ConfigError, DataError, ModelError) as error:
        return {**cell, "note": f"does not run here: {error}"}
    else:
        result = result_of(str(folder), point.config.template)
        seen = Store(folder / "observations").observe(
            result.model, result.task, beside.split, sweep.wanted(beside.split), quiet=True
        )
        card = beside.card(seen)
        write_text(folder / "measurements.json", plain([m.row() for m in card]))
        write_card(folder)
        cell |= beside.cell(beside.figures(card))
    cell["steps"] = len((folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    if shared.stop is not None and cell["level"] is not None:
        cell["tree"] = {**point.tree, "max_steps": cell["steps"]}
        cell["note"] = cell["note"] or (
            "" if cell["level"] <= shared.stop else "ended before matched forgetting"
        )
    cell["seconds"] = round(time.monotonic() - began, 1)
    write_text(folder / POINT, json.dumps(cell, indent=1))
    return cell
