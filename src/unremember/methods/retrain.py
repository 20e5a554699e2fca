"""Retraining without the forget set: the oracle that every other method is compared with."""

from __future__ import annotations

import dataclasses
from typing import Any

from unremember.data.split import Split, with_train_role
from unremember.engine.recipe import Recipe, refuse_overrides
from unremember.engine.seams import Term
from unremember.engine.settings import Run
from unremember.registry import methods
from unremember.tasks.artefact import Artefact


@methods.register(
    "retrain",
    needs=("retain", "fresh weights"),
    taxonomy="around.retraining",
    fidelity="own",
    cost="1 forward, 1 backward",
)
@dataclasses.dataclass(frozen=True)
class Retrain:
    """Train fresh weights on the retain set and the general roles alone: the retrained oracle."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Plain training on everything but the forget set."""
        return (Recipe(terms=(Term("train"),)),)

    def derived(self, split: Split) -> Split:
        """Add the role ``train``: all roles that are learned, without the forget set."""
        return with_train_role(split, without=("forget",))

    def run(self, start: Artefact, split: Split, run: Run) -> Artefact:
        """Train a model of the original's architecture whose weights are drawn anew from the seed."""
        from unremember.models.presets import fresh_model_like

        blank = Artefact(fresh_model_like(start.model, run.settings.seed), start.task, start.guard)
        (recipe,) = self.recipes
        return recipe.run(blank, self.derived(split), run)

    def override(self, **parts: Any) -> Retrain:
        """Raise ConfigError for any part that is given."""
        refuse_overrides("retraining is plain training of all weights", parts)
        return self
