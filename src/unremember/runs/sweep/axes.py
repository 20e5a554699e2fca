"""The points of a sweep: lists that are crossed, or ranges that are searched."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember.errors import ConfigError
from unremember.runs.config import SETTINGS, read_tree, read_value, with_numbers

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_SHARED = ("model", "data", "template", "without", "only", "settings")
"""What cannot be swept: all points are measured beside the same controls."""
_WORST = -1e9
"""What a search is told of a point without figures."""

Values = dict[str, Any]
"""The swept values of one point, by key."""
Cell = Mapping[str, Any]
"""The figures of one point."""


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``; only whole ones where both ends are written as such."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """Whether a search draws the logarithm: both ends are above 0 and at least ten-fold apart."""
        return self.low > 0 and self.high >= 10 * self.low


Axes = Mapping[str, list[Any] | Range]
"""The swept keys with their points."""


def read_sweep(
    words: Sequence[str], matched: bool, allowed: Sequence[str] = ()
) -> tuple[dict[str, Any], Axes]:
    """Read a configuration file, ``key=value`` and ``sweep.key=[…]``; the later word wins.

    Args:
        matched: Points end at matched forgetting, so that their learning rate must be constant.
        allowed: The packages from which the file may name parts by import path.

    Returns:
        The configuration that all points share, and the axes.

    Raises:
        ConfigError: Nothing is swept, or something that cannot be.
    """
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(
            f"one configuration is swept, not {len(files)} ({', '.join(files)}): settings are key=value"
        )
    swept = [word for word in words if word.startswith("sweep.") and "=" in word]
    keys = [word for word in words if "=" in word and word not in swept]
    tree = read_tree(Path(files[0]) if files else None, {}, keys, allowed)
    points = tree.pop("sweep", {})
    if not isinstance(points, dict):
        raise ConfigError("sweep: holds keys and their points, such as lr: [1e-4, 1e-3]")
    for word in swept:
        key, _, text = word.removeprefix("sweep.").partition("=")
        points[key] = with_numbers(read_value(key, text))
    check_points(points, tree)
    if matched and ("schedule" in points or tree.setdefault("schedule", "constant") != "constant"):
        raise ConfigError(
            "--matched ends a run early, so its rate cannot fall towards the end: set schedule=constant, or "
            "leave the schedule out"
        )
    return tree, {str(key): axis(key, value) for key, value in points.items()}


def check_points(points: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
    """Raise ConfigError where nothing is swept, something shared is, or points stand outside ``sweep:``."""
    if not points:
        raise ConfigError("nothing is swept: give sweep.lr=[1e-4,1e-3], or a block `sweep:` in the file")
    for key in points:
        if (root := str(key).split(".")[0]) in _SHARED:
            raise ConfigError(
                f"sweep.{key}: {root} cannot be swept, for all points are measured beside the same controls"
            )
    for key, value in tree.items():
        is_list, is_range = isinstance(value, list), isinstance(value, str) and _RANGE.fullmatch(value)
        if (is_list and key in SETTINGS) or is_range:
            raise ConfigError(
                f"{key}: the points of a sweep stand under sweep: sweep.{key}={str(value).replace(' ', '')}"
            )


def axis(key: str, points: Any) -> list[Any] | Range:
    """Return a list of points, or the range ``low..high``. Raises ConfigError for anything else."""
    if isinstance(points, list) and points:
        return points
    limits = _RANGE.fullmatch(points) if isinstance(points, str) else None
    if not limits:
        raise ConfigError(f"sweep.{key} is {points!r}: give a list [a, b] or a range low..high")
    low, high = (int(end) if re.fullmatch(r"[-+]?\d+", end) else float(end) for end in limits.groups())
    if not low < high:
        raise ConfigError(f"sweep.{key}: the range {points} ends before it begins")
    return Range(low, high)


def corner_points(axes: Axes) -> list[Values]:
    """Return every combination of the lists' points and the ranges' ends."""
    points = [[some.low, some.high] if isinstance(some, Range) else some for some in axes.values()]
    return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*points)]


def crossed_points(axes: Axes) -> list[Values]:
    """Return the cross product of the lists. Raises ConfigError for a range, which has no list of points."""
    for key, some in axes.items():
        if isinstance(some, Range):
            raise ConfigError(
                f"sweep.{key} is a range: give a list of points, or --search N to search N points in it"
            )
    return corner_points(axes)


def search(
    axes: Axes,
    count: int,
    seed: int,
    least: float,
    slots: int,
    run: Callable[[list[Values]], Sequence[Cell]],
) -> list[Cell]:
    """Search for the best quality whose utility is at least ``least``, with Optuna's TPE.

    The points depend on the seed, ``slots`` and the cells alone, so a repeated search asks for the same
    points.

    Args:
        count: How many points are run.
        slots: How many of them run together.
        run: Runs some points and returns their cells.

    Raises:
        ConfigError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("a search needs Optuna: pip install 'unremember[cluster]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {key: distribution(some) for key, some in axes.items()}
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    cells: list[Cell] = []
    while len(cells) < count:
        trials = [study.ask(space) for _ in range(min(slots, count - len(cells)))]
        points = [drawn_values(axes, trial.params) for trial in trials]
        for trial, cell in zip(trials, run(points), strict=True):
            trial.set_constraint("utility", least - (cell["utility"] or 0.0))
            study.tell(trial, _WORST if cell["quality"] is None else cell["quality"])
            cells.append(cell)
    return cells


def distribution(points: list[Any] | Range) -> Any:
    """Return what Optuna draws an axis from: the range, or the positions in a list."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(points, Range):
        return CategoricalDistribution(range(len(points)))
    if isinstance(points.low, int) and isinstance(points.high, int):
        return IntDistribution(points.low, points.high, log=points.log)
    return FloatDistribution(points.low, points.high, log=points.log)


def drawn_values(axes: Axes, drawn: Mapping[str, Any]) -> Values:
    """Return the values that Optuna drew: a number of a range, or the point at a position of a list."""
    values = {}
    for key, number in drawn.items():
        points = axes[key]
        values[key] = number if isinstance(points, Range) else points[number]
    return values


def value_text(value: Any) -> str:
    """Return a swept value in a few characters."""
    if isinstance(value, Mapping):
        parameters = ", ".join(f"{key}={value_text(inner)}" for key, inner in value.items() if key != "name")
        return f"{value.get('name', '')}({parameters})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def point_title(values: Values) -> str:
    """Return a point's swept values, as ``lr=0.001 beta=0.2``."""
    return " ".join(f"{key}={value_text(value)}" for key, value in values.items())


def point_folder(folder: Path, values: Values, identity: str) -> Path:
    """Return a point's folder: its values, for the reader, and the beginning of its identity."""
    return folder / f"{re.sub(r'[^A-Za-z0-9.=,+-]+', '_', point_title(values))[:80]}-{identity[:8]}"
