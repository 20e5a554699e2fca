"""The controls that every point of a sweep is measured beside, and what makes a point good."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from unremember.audits.controls import Controls, requests_of
from unremember.audits.measurement import Measurement
from unremember.data.split import Split
from unremember.errors import ConfigError
from unremember.observe.protocol import ObservationRequest
from unremember.observe.records import Observations
from unremember.registry import audits
from unremember.runs.matched import COMPARED_AUDITS, matched_target

_RETAIN = {"name": "probability", "role": "retain"}
"""The utility of data that have no other measure of it."""


@dataclasses.dataclass(frozen=True)
class SweepControls:
    """The original and the oracles of a sweep, observed once."""

    split: Split
    original: Observations
    oracles: tuple[Observations, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the data, the controls and the audits."""
        artefacts = [self.original.artefact, *(oracle.artefact for oracle in self.oracles)]
        parts = [self.split.digest, *artefacts, *map(str, self.specs)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @cached_property
    def specs(self) -> list[Any]:
        """The audits of the sweep."""
        return sweep_audits(self.split)

    def measure(self, observations: Observations) -> list[Measurement]:
        """Return the measurements of one point, each with its verdict."""
        return self.controls.card(observations)

    @cached_property
    def controls(self) -> Controls:
        """The figures of the controls, measured once."""
        return Controls([audits.make(spec) for spec in self.specs], self.original, self.oracles)

    def figures(self, measurements: Sequence[Measurement]) -> dict[str, dict[str, Any]]:
        """Return measurements as rows by name; the probability of another role is named after the role."""
        return {figure_name(spec): m.row() for spec, m in zip(self.specs, measurements, strict=True)}

    @cached_property
    def ends(self) -> list[dict[str, dict[str, Any]]]:
        """The figures of the original, then those of each oracle."""
        return [self.figures(self.measure(control)) for control in (self.original, *self.oracles)]

    @cached_property
    def judges(self) -> tuple[str, str]:
        """The names of the figures of forgetting and utility. Raises ConfigError without one of them."""
        figures, retain = self.ends[0], figure_name(_RETAIN)
        knowledge = ("more_knowledge", "less_knowledge")
        of_knowledge = [
            name for name in figures if figures[name]["higher_is"] in knowledge and name != retain
        ]
        forgetting = [name for name in figures if name == "forget_quality"] or of_knowledge
        utility = [
            name for name in figures if figures[name]["higher_is"] == "better_utility" or name == retain
        ]
        if not forgetting or not utility:
            lacking = "utility" if forgetting else "forgetting"
            raise ConfigError(
                f"{self.split.name} has no measure of {lacking}: a sweep needs answers in the roles forget "
                "and retain"
            )
        return forgetting[0], utility[0]

    @cached_property
    def target(self) -> float:
        """The forget probability of matched forgetting. Raises ConfigError where it is not measured."""
        if "probability" not in self.ends[0]:
            raise ConfigError(
                f"the audits of {self.split.name} do not measure the probability of the forget answers: "
                "leave out --matched"
            )
        original, *oracles = [figures["probability"]["value"] for figures in self.ends]
        return matched_target(original, oracles)

    def cell(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Return a cell of these figures.

        Its ``quality``, ``utility`` and ``level`` (the forget probability) are None where they were not
        measured; its ``note`` says why it has no quality.
        """
        forgetting, utility, probability = (figures.get(name, {}) for name in (*self.judges, "probability"))
        score = quality(forgetting)
        why = "" if score is not None else forgetting.get("reason") or forgetting.get("note") or ""
        return {
            "figures": figures,
            "quality": score,
            "utility": utility.get("value"),
            "level": probability.get("value"),
            "note": why,
        }

    def control_cells(self) -> list[dict[str, Any]]:
        """Return the cells of the original and the oracles. On an axis of positions they are its ends."""
        cells = []
        positions = [("original", -1.0), *(("oracle", 0.0) for _ in self.oracles)]
        for (title, position), figures in zip(positions, self.ends, strict=True):
            cell = self.cell(figures)
            score = position if cell["quality"] is None else cell["quality"]
            cells.append({**cell, "title": title, "steps": 0, "note": "", "quality": score})
        return cells

    def identity(self, config: Mapping[str, Any], target: float | None, every: int) -> str:
        """Hash what decides a point: controls, data, its whole configuration, and where it stops."""
        settings = json.dumps(config, sort_keys=True)
        stop = f"{target} {every if target else 0}"
        return hashlib.sha256(f"{self.digest} {settings} {stop}".encode()).hexdigest()


def sweep_audits(split: Split) -> list[Any]:
    """List the audits of a sweep: the split's own or those of a comparison; and the retain probability."""
    specs = (*(split.audits or COMPARED_AUDITS), _RETAIN)
    return [spec for spec in specs if audits.make(spec).requests(split)]


def sweep_requests(split: Split) -> list[ObservationRequest[Any]]:
    """List what the audits of a sweep observe, each once."""
    return requests_of([audits.make(spec) for spec in sweep_audits(split)], split)


def figure_name(spec: Any) -> str:
    """Return the name of an audit's figure: its values, joined, where it has parameters."""
    return " ".join(map(str, spec.values())) if isinstance(spec, Mapping) else str(spec)


def quality(row: Mapping[str, Any]) -> float | None:
    """Return how near a point is to the oracle, 0 being the best.

    That is log10 p of the forget quality, else minus the distance of the position; None where there is
    neither.
    """
    if row.get("name") == "forget_quality":
        return row["extra"].get("log10_p")
    position = row.get("position")
    return None if position is None else -abs(position)
