"""Accuracy of image classifiers: on what was to be forgotten, and on what was to be retained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from unremember.audits.measurement import Measurement, measure_mean, measure_mean_of_values
from unremember.data.split import Split
from unremember.observe.kinds.class_scores import ClassScores
from unremember.observe.records import Observations
from unremember.registry import audits


def has_images(split: Split, role: str) -> bool:
    """Return whether a role has images with labels: rows with ``input`` and ``label``."""
    return role in split and any("input" in row and "label" in row for row in split[role].rows)


def correct_labels(observations: Observations, role: str) -> np.ndarray:
    """Return float64[n]: 1 where the greatest score is that of the label, else 0; NaN for scores of NaN."""
    scores, labels = observations[ClassScores(role)], np.array(observations.split[role].column("label"))
    return np.where(np.isnan(scores).any(1), np.nan, scores.argmax(1) == labels)


def retained_roles(split: Split) -> tuple[str, ...]:
    """Return the utility roles of a split; ``retain`` where it names none."""
    return split.utility or ("retain",)


@audits.register(
    "accuracy",
    needs=("forget", "input", "label", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Share of a role's images whose greatest class score is that of their label."""

    role: str = "forget"

    def requests(self, split: Split) -> list[ClassScores]:
        return [ClassScores(self.role)] if has_images(split, self.role) else []

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        return measure_mean("accuracy", correct_labels(observations, self.role), observations, self.role)


@audits.register(
    "retained_accuracy",
    needs=("retain", "input", "label"),
    taxonomy="evaluation.retaining",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class RetainedAccuracy:
    """Share of right labels over the images of all utility roles, or of ``retain`` where a split has none."""

    def requests(self, split: Split) -> list[ClassScores]:
        roles = retained_roles(split)
        return [ClassScores(role) for role in roles] if all(has_images(split, role) for role in roles) else []

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        split = observations.split
        roles = retained_roles(split)
        values = np.concatenate([correct_labels(observations, role) for role in roles])
        groups = [f"{role} {group}" for role in roles for group in split[role].groups()]
        return measure_mean_of_values(
            "retained_accuracy", values, groups, observations.artefact, split.digest, "better_utility"
        )
