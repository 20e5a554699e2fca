"""Run the points of a sweep, many at once, each into a run folder of its own."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember.data.split import Split
from unremember.errors import Collapsed, ConfigError, DataError, ModelError
from unremember.files import write_recorded
from unremember.models.load import silence_libraries
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.report.comparison import strict_json
from unremember.runs.compare import Candidate, check_controls, named_candidates, shared_template
from unremember.runs.config import RunConfig, check_parts, parse_config, set_key
from unremember.runs.folder import artefact_of, split_of, steps_taken, write_card
from unremember.runs.forget import run_forget
from unremember.runs.matched import answer_probability, read_cell, write_cell
from unremember.runs.sweep import axes as sweep_axes
from unremember.runs.sweep.axes import Axes, Cell, Values
from unremember.runs.sweep.controls import SweepControls, sweep_requests
from unremember.runs.sweep.result import SweepResult, save_sweep
from unremember.runs.workers import Workers, workers
from unremember.tasks.artefact import Artefact, Interface, check_comparable
from unremember.tasks.protocol import Task

_POINT = "point.json"


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all points share.

    Args:
        controls: The observed controls.
        task: The task of the models.
        target: The forget probability at which a point ends; None: it runs to its end.
        every: Steps between two evaluations of it; 0: an epoch.
    """

    controls: SweepControls
    task: Task
    target: float | None
    every: int


@dataclasses.dataclass(frozen=True)
class Point:
    """One configuration: as the user would write it (``tree``), what decides it hashed, its run folder."""

    title: str
    tree: Mapping[str, Any]
    config: RunConfig
    identity: str
    folder: Path


def run_sweep(
    tree: Mapping[str, Any],
    axes: Axes,
    folder: Path,
    *,
    oracles: Sequence[str],
    original: str = "",
    floor: float = 0.9,
    count: int = 0,
    matched: bool = False,
    every: int = 0,
    address: str = "",
) -> SweepResult:
    """Run the points of a sweep that are not finished yet; write the page, the figure and ``best.yaml``.

    Args:
        tree: The configuration that all points share.
        axes: The swept keys with their points.
        folder: Where points and results are kept.
        oracles: Models retrained without the forget set.
        original: The model before forgetting; "" for the configuration's.
        floor: The share of the original's utility that a recommended point keeps.
        count: Search so many points; 0: run the cross product of the lists.
        matched: End each point at matched forgetting, evaluated after ``every`` steps (0: an epoch).
        address: A Ray cluster; "" for this machine.

    Raises:
        ConfigError: A point cannot be, or a control is missing; nothing is loaded then.
    """
    if not tree.get("model"):
        raise ConfigError("a sweep needs model=…: a model folder, a run folder or a hub name")
    if not oracles:
        raise ConfigError(
            "a sweep needs --oracle, a model retrained without the forget set: make one with "
            "`unremember train --without forget …`"
        )
    values = sweep_axes.corner_points(axes) if count else sweep_axes.crossed_points(axes)
    for point in values:
        check_parts(config_with(tree, point))  # a seam that a method lacks is the point's own recorded result
    base, pool = config_with(tree, values[0]), workers(address)
    split = split_of(base.data)
    candidates = named_candidates(original or base.model, oracles, [])
    check_controls(candidates, split)
    template = base.template or shared_template(candidates)
    controls, task = observe_controls(split, candidates, template, folder / "observations")
    shared = Shared(controls, task, controls.target if matched else None, every)
    ends = controls.control_cells()
    if floor and not ends[0]["utility"]:
        raise ConfigError(
            "the original has no utility of which a share could be kept: --floor 0 recommends by forgetting "
            "alone"
        )
    least = floor * (ends[0]["utility"] or 0.0)

    def run(some: list[Values]) -> list[Cell]:
        points = [point_of(shared, tree, swept, folder / "points") for swept in some]
        return run_points(pool, shared, points)

    if count:
        cells = sweep_axes.search(axes, count, base.settings.seed, least, pool.slots, run)
    else:
        cells = run(values)
    cells = sorted({cell["name"]: cell for cell in cells}.values(), key=rank, reverse=True)
    title = f"Sweep on {split.name}: {len(cells)} points"
    result = SweepResult(title, cells, ends, controls.judges, floor, least, shared.target)
    save_sweep(result, folder)
    return result


def config_with(tree: Mapping[str, Any], values: Values) -> RunConfig:
    """Return the configuration of a point."""
    return parse_config(tree_with(tree, values))


def tree_with(tree: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return a configuration with a point's values; a whole part is set before its parameters."""
    changed = copy.deepcopy(dict(tree))
    for key in sorted(values, key=lambda key: key.count(".")):
        set_key(changed, key.split("."), copy.deepcopy(values[key]))
    return changed


def observe_controls(
    split: Split, candidates: Sequence[Candidate], template: str | Mapping[str, Any], folder: Path
) -> tuple[SweepControls, Task]:
    """Observe the original and the oracles, one model in memory at a time; return the original's task too."""
    silence_libraries()
    requests, store = sweep_requests(split), Store(folder)
    interfaces: dict[str, Interface] = {}

    def observe(candidate: Candidate) -> tuple[Observations, Task]:
        artefact = artefact_of(candidate.path, template)
        interfaces[f"{candidate.kind} {candidate.path}"] = Interface.of(artefact)
        check_comparable(interfaces)
        return store.observe(artefact, split, requests), artefact.task

    (original, task), *oracles = [observe(candidate) for candidate in candidates]
    return SweepControls(split, original, tuple(observations for observations, _ in oracles)), task


def rank(cell: Cell) -> tuple[bool, float, float]:
    """Return what a table is sorted by: whether there is a quality, the quality, the utility."""
    return cell["quality"] is not None, cell["quality"] or 0.0, cell["utility"] or 0.0


def point_of(shared: Shared, tree: Mapping[str, Any], values: Values, folder: Path) -> Point:
    """Return the point of some values, in a folder that is named after them."""
    changed = tree_with(tree, values)
    config = parse_config(changed)
    identity = shared.controls.identity(config.model_dump(mode="json"), shared.target, shared.every)
    home = sweep_axes.point_folder(folder, values, identity)
    return Point(sweep_axes.point_title(values), changed, config, identity, home)


def run_points(pool: Workers, shared: Shared, points: Sequence[Point]) -> list[Cell]:
    """Return the cells of some points, in their order.

    A finished point is read, and a point that is listed twice runs once.
    """
    cells = {point.folder: read_cell(point.folder / _POINT, point.identity) for point in points}
    missing = list({point.folder: point for point in points if cells[point.folder] is None}.values())
    if missing:
        results = pool.run("points", run_point, shared, missing)
        cells |= dict(zip([point.folder for point in missing], results, strict=True))
    return [cell for point in points if (cell := cells[point.folder])]


def watch_level(shared: Shared) -> Callable[[Any, int], bool] | None:
    """Return what ends a run at matched forgetting; None where runs go to their end."""
    target, split = shared.target, shared.controls.split
    if target is None:
        return None

    def reached(model: Any, step: int) -> bool:
        return answer_probability(Artefact(model, shared.task), split) <= target

    return reached


def run_point(shared: Shared, point: Point) -> dict[str, Any]:
    """Forget and measure one point.

    A collapse, and whatever the method finds missing in data or model, is a recorded result.
    """
    controls, folder, began = shared.controls, point.folder, time.monotonic()
    cell = {
        "identity": point.identity,
        "name": folder.name,
        "title": point.title,
        "tree": point.tree,
        "steps": 0,
        **controls.cell({}),
    }
    try:
        run_forget(point.config, folder, watch_level(shared), shared.every)
    except Collapsed as error:
        cell["note"] = f"collapsed: {error}"
    except (ConfigError, DataError, ModelError) as error:
        return {**cell, "note": f"does not run here: {error}"}
    else:
        cell |= controls.cell(measure_point(controls, point))
    cell["steps"] = steps_taken(folder)
    if shared.target is not None and cell["level"] is not None:
        cell["tree"] = {**point.tree, "max_steps": cell["steps"]}
        if cell["level"] > shared.target and not cell["note"]:
            cell["note"] = "ended before matched forgetting"
    cell["seconds"] = round(time.monotonic() - began, 1)
    write_cell(folder / _POINT, cell)
    return cell


def measure_point(controls: SweepControls, point: Point) -> dict[str, Any]:
    """Observe and measure the model of a finished point; its run folder keeps the measurements."""
    folder, split = point.folder, controls.split
    artefact = artefact_of(str(folder), point.config.template)
    store = Store(folder / "observations")
    observations = store.observe(artefact, split, sweep_requests(split), quiet=True)
    measurements = controls.measure(observations)
    write_recorded(folder / "measurements.json", strict_json([m.row() for m in measurements]).encode())
    write_card(folder)
    return controls.figures(measurements)
