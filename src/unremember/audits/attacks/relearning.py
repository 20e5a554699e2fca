"""Relearning: a little training brings back what was hidden rather than removed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from unremember.audits.attacks import AttackPoint, Evaluate, Subject
from unremember.data.split import Split
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.engine.settings import Run, Settings
from unremember.errors import ConfigError, require_positive
from unremember.registry import attacks
from unremember.tasks.artefact import Artefact


@attacks.register(
    "relearning",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=("forget", "oracle", "original"),
    taxonomy="evaluation.recovery",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class Relearning:
    """Train a copy on a share of a role's rows and measure the forget rows that it was not trained on.

    Args:
        role: ``forget`` is the targeted attack, ``retain`` (or any other) the benign one.
        share: The share of the role's rows that are trained on. With 1 of the forget set no rows remain: then
            the trained ones are measured, as published.
        steps: The steps of the training.
        points: How often the copy is measured in these steps; it is also measured before them.
        lr: The learning rate.
        batch_size: The rows of a step.
        seed: The seed of the training.
    """

    role: str = "forget"
    share: float = 0.1
    steps: int = 50
    points: int = 5
    lr: float = 1e-4
    batch_size: int = 16
    seed: int = 0
    unit = "steps"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share={self.share}: give a share of the rows above 0 and at most 1")
        require_positive(self, "steps", "points")
        _ = self.settings  # raises for a value that training does not take

    @property
    def settings(self) -> Settings:
        """The settings of the training."""
        return Settings(
            epochs=10**6,
            max_steps=self.steps,
            lr=self.lr,
            batch_size=self.batch_size,
            schedule="constant",
            warmup=0.0,
            weight_decay=0.0,
            seed=self.seed,
        )

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        artefact, (trained, measured) = subject.artefact, self.parts(subject.split)

        def watch(model: Any, step: int) -> None:
            evaluate(AttackPoint(step, Artefact(model, artefact.task, artefact.guard), measured))

        evaluate(AttackPoint(0, artefact, measured))
        every = max(1, math.ceil(self.steps / self.points))
        run = Run(self.settings, watch=watch, every=every, quiet=True)
        Recipe((Term("shown"),)).run(artefact.copy(), trained, run)

    def parts(self, split: Split) -> tuple[Split, Split]:
        """Return the split with the trained rows as the role ``shown``, and the split that is measured.

        A row's key decides whether it is trained on, so a deleted row moves no other.
        """
        rows = split[self.role]
        order = np.argsort(rows.keys, kind="stable")
        chosen = set(order[: max(1, round(self.share * len(rows)))].tolist())
        trained = split.with_rows(shown=[row for i, row in enumerate(rows.rows) if i in chosen])
        if self.role != "forget":
            return trained, split
        unseen = [row for i, row in enumerate(rows.rows) if i not in chosen]
        return trained, split.with_rows(forget=unseen) if unseen else split
