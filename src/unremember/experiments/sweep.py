"""A sweep: the points of a configuration, what they are measured beside, their front, and the point that is recommended."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unremember.audits import controls
from unremember.audits.measurement import Measurement
from unremember.data.split import Split
from unremember.errors import ConfigError
from unremember.experiments.cells import KEPT, at_matched
from unremember.observe.records import Observations, Want
from unremember.registry import audits

NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})")
RETAIN = {"name": "probability", "role": "retain"}
"""The utility of data that have no other measure of it."""
HOW = "give a list [a, b] or a range low..high"
WORST = -1e9
"""What a search is told of a point without figures."""
Values = dict[str, Any]
Cell = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``; only whole ones where both ends are written as such."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """Whether a search draws the logarithm: both ends are above 0 and at least ten-fold apart."""
        return self.low > 0 and self.high >= 10 * self.low


def axis(key: str, given: Any) -> list[Any] | Range:
    """A list of points, or the range ``low..high``. Raises ConfigError for anything else."""
    if isinstance(given, list) and given:
        return given
    ends = RANGE.fullmatch(given) if isinstance(given, str) else None
    if not ends:
        raise ConfigError(f"sweep.{key} is {given!r}: {HOW}")
    low, high = (int(end) if re.fullmatch(r"[-+]?\d+", end) else float(end) for end in ends.groups())
    if not low < high:
        raise ConfigError(f"sweep.{key}: the range {given} ends before it begins")
    return Range(low, high)


def ends(axes: Mapping[str, Any]) -> list[Values]:
    """Every combination of the lists' points and the ranges' ends."""
    points = [[some.low, some.high] if isinstance(some, Range) else some for some in axes.values()]
    return [dict(zip(axes, chosen)) for chosen in itertools.product(*points)]


def crossed(axes: Mapping[str, Any]) -> list[Values]:
    """The cross product. Raises ConfigError for a range, which has no end of points."""
    for key, some in axes.items():
        if isinstance(some, Range):
            raise ConfigError(
                f"sweep.{key} is a range: give a list of points, or --search N to search N points in it"
            )
    return ends(axes)


def searched(
    axes: Mapping[str, Any],
    count: int,
    seed: int,
    least: float,
    at_once: int,
    run: Callable[[list[Values]], Sequence[Cell]],
) -> list[Cell]:
    """``count`` points that Optuna's TPE asks for, ``at_once`` together: the best quality whose utility is ``least`` or more.

    What is asked depends on the seed, ``at_once`` and the cells alone, so a search that is run again asks for the same points.
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
        trials = [study.ask(space) for _ in range(min(at_once, count - len(cells)))]
        asked = [
            {
                key: some if isinstance(axes[key], Range) else axes[key][some]
                for key, some in trial.params.items()
            }
            for trial in trials
        ]
        for trial, cell in zip(trials, run(asked)):
            trial.set_constraint("utility", least - (cell["utility"] or 0.0))
            study.tell(trial, WORST if cell["quality"] is None else cell["quality"])
            cells.append(cell)
    return cells


def distribution(some: Any) -> Any:
    """Where Optuna draws an axis from: the range, or the places of a list."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(some, Range):
        return CategoricalDistribution(range(len(some)))
    if isinstance(some.low, int) and isinstance(some.high, int):
        return IntDistribution(some.low, some.high, log=some.log)
    return FloatDistribution(some.low, some.high, log=some.log)


def said(value: Any) -> str:
    """A swept value in a few characters."""
    if isinstance(value, Mapping):
        return f"{value.get('name', '')}({', '.join(f'{key}={said(one)}' for key, one in value.items() if key != 'name')})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def titled(values: Values) -> str:
    """A point's swept values, as ``lr=0.001 beta=0.2``."""
    return " ".join(f"{key}={said(value)}" for key, value in values.items())


@dataclasses.dataclass(frozen=True)
class Beside:
    """What every point is measured beside: the original and the oracles, observed once."""

    split: Split
    original: Observations
    oracles: tuple[Observations, ...]

    @cached_property
    def digest(self) -> str:
        parts = [
            self.split.digest,
            self.original.artefact,
            *[o.artefact for o in self.oracles],
            *map(str, self.specs),
        ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @cached_property
    def specs(self) -> list[Any]:
        return named(self.split)

    def card(self, seen: Observations) -> list[Measurement]:
        return controls.card([audits.make(spec) for spec in self.specs], seen, self.oracles, self.original)

    def figures(self, card: Sequence[Measurement]) -> dict[str, dict[str, Any]]:
        """The rows of a card by name; a probability of another role than ``forget`` is called after it."""
        return {name_of(spec): m.row() for spec, m in zip(self.specs, card)}

    @cached_property
    def ends(self) -> list[dict[str, dict[str, Any]]]:
        """The figures of the original, then of each oracle."""
        return [self.figures(self.card(seen)) for seen in (self.original, *self.oracles)]

    @cached_property
    def judges(self) -> tuple[str, str]:
        """The names of the figures that measure forgetting and utility. Raises ConfigError where the split has none."""
        found = self.ends[0]
        knowing = [
            n
            for n, row in found.items()
            if row["higher_is"] in ("more_knowledge", "less_knowledge") and n != name_of(RETAIN)
        ]
        forgetting = [name for name in found if name == "forget_quality"] or knowing
        utility = [
            name
            for name, row in found.items()
            if row["higher_is"] == "better_utility" or name == name_of(RETAIN)
        ]
        if not forgetting or not utility:
            lacking = "utility" if forgetting else "forgetting"
            raise ConfigError(
                f"{self.split.name} has no measure of {lacking}: a sweep needs answers in the roles forget and retain"
            )
        return forgetting[0], utility[0]

    @cached_property
    def target(self) -> float:
        """The forget probability of matched forgetting. Raises ConfigError where the audits of the split do not measure it."""
        if "probability" not in self.ends[0]:
            raise ConfigError(
                f"the audits of {self.split.name} do not measure the probability of the forget answers: leave out --matched"
            )
        start, *retrained = [card["probability"]["value"] for card in self.ends]
        return at_matched(start, retrained)

    def cell(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """A cell of these figures with its ``quality``, ``utility`` and ``level`` (the forget probability); its note says why it has no quality."""
        forgetting, useful, odds = (figures.get(name, {}) for name in (*self.judges, "probability"))
        found = quality(forgetting)
        why = "" if found is not None else forgetting.get("reason") or forgetting.get("note") or ""
        return {
            "figures": figures,
            "quality": found,
            "utility": useful.get("value"),
            "level": odds.get("value"),
            "note": why,
        }


def named(split: Split) -> list[Any]:
    """The audits of a sweep: the split's own, else the few of a comparison; and the probability of the retain answers."""
    return [spec for spec in (*(split.audits or KEPT), RETAIN) if audits.make(spec).wants(split)]


def wanted(split: Split) -> list[Want]:
    """What the audits of a sweep observe."""
    return list(dict.fromkeys(want for spec in named(split) for want in audits.make(spec).wants(split)))


def name_of(spec: Any) -> str:
    return " ".join(map(str, spec.values())) if isinstance(spec, Mapping) else str(spec)


def quality(row: Mapping[str, Any]) -> float | None:
    """How near to the oracle: log10 p of the forget quality, else minus the distance of the position. 0 is the best."""
    if row.get("name") == "forget_quality":
        return row["extra"].get("log10_p")
    at = row.get("position")
    return None if at is None else -abs(at)


def front(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that no other one beats: none is at least as good in quality and in utility and better in one. The best quality comes first."""
    there = sorted((c for c in cells if whole(c)), key=lambda c: (c["quality"], c["utility"]), reverse=True)
    return [c for c in there if not any(beats(other, c) for other in there)]


def whole(cell: Cell) -> bool:
    return cell["quality"] is not None and cell["utility"] is not None


def beats(one: Cell, other: Cell) -> bool:
    mine, its = (one["quality"], one["utility"]), (other["quality"], other["utility"])
    return mine != its and mine[0] >= its[0] and mine[1] >= its[1]


def recommended(cells: Sequence[Cell], least: float) -> Cell | None:
    """The best quality on the front whose utility is ``least`` or more (of equals the first); None where no cell keeps so much."""
    return next((c for c in front(cells) if c["utility"] >= least), None)


def place(folder: Path, values: Values, identity: str) -> Path:
    """A point's folder: its values, for the reader, and the beginning of its identity."""
    return folder / f"{re.sub(r'[^A-Za-z0-9.=,+-]+', '_', titled(values))[:80]}-{identity[:8]}"


def identity(beside: Beside, config: Mapping[str, Any], stop: float | None, every: int) -> str:
    """What decides a point: the controls and the data, its whole configuration, and where it stops."""
    return hashlib.sha256(
        f"{beside.digest} {json.dumps(config, sort_keys=True)} {stop} {every if stop else 0}".encode()
    ).hexdigest()
