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
from unremember.errors import ConfigError
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
    """Train a copy on a share of a role's rows and look at the forget rows that it was not shown.

    ``role="forget"`` is the targeted attack, ``role="retain"`` (or any other) the benign one. With ``share=1`` of the forget
    set there is nothing else to look at: then the rows themselves, as published. It is looked at ``looks`` times in
    ``steps`` steps of one training, and before.
    """

    role: str = "forget"
    share: float = 0.1
    steps: int = 50
    looks: int = 5
    lr: float = 1e-4
    batch_size: int = 16
    seed: int = 0
    unit = "steps"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share={self.share}: a share of the rows above 0, at most 1")

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        artefact, (shown, unseen) = subject.artefact, self.parts(subject.split)
        settings = Settings(
            epochs=10**6,
            max_steps=self.steps,
            lr=self.lr,
            batch_size=self.batch_size,
            schedule="constant",
            warmup=0.0,
            weight_decay=0.0,
            seed=self.seed,
        )

        def watch(model: Any, step: int) -> None:
            evaluate(AttackPoint(step, Artefact(model, artefact.task, artefact.guard), unseen))

        evaluate(AttackPoint(0, artefact, unseen))
        every = max(1, math.ceil(self.steps / self.looks))
        run = Run(settings, watch=watch, every=every, quiet=True)
        Recipe((Term("shown"),)).run(artefact.copy(), shown, run)

    def parts(self, split: Split) -> tuple[Split, Split]:
        """The split with the role ``shown``, and the split whose forget set is what was not shown. A row's key decides."""
        rows = split[self.role]
        order = np.argsort(rows.keys, kind="stable")
        chosen = set(order[: max(1, round(self.share * len(rows)))].tolist())
        shown = split.with_rows(shown=[row for i, row in enumerate(rows.rows) if i in chosen])
        left = (
            [row for i, row in enumerate(split["forget"].rows) if i not in chosen]
            if self.role == "forget"
            else []
        )
        return shown, split.with_rows(forget=left) if left else split
