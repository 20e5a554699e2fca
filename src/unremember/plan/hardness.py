"""Hardness: how far retaining opposes forgetting, from a trial on a copy of the model."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from torch import Tensor

from unremember.data.split import Split
from unremember.engine import loop
from unremember.engine.blends.hamu import HAMU
from unremember.engine.seams import Seams, State
from unremember.engine.settings import Settings
from unremember.engine.step import StepContext
from unremember.tasks.protocol import Task


@dataclasses.dataclass(frozen=True)
class Hardness:
    """Means over the steps of a trial.

    Args:
        steps: The number of steps.
        cosine: The cosine of the gradients of the retain answers' and the forget answers' loss.
        damaged: The share of weight blocks in which damage is unavoidable.
        stop: The share of steps that met HAMU's stop rule.
        forget: The rise of the forget answers' loss a step.
        retain: The rise of the retain answers' loss a step.
    """

    steps: int
    cosine: float
    damaged: float
    stop: float
    forget: float
    retain: float

    @property
    def advice(self) -> str:
        """``go``: forgetting need not hurt; ``careful``: it does in places; ``stop``: most steps hurt."""
        if self.stop > 0.5:
            return "stop"
        return "careful" if self.stop > 0 or self.retain > 0 else "go"


@dataclasses.dataclass(frozen=True)
class _Trial(HAMU):
    """HAMU that never stops and keeps the figures of every step."""

    figures: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        update, state = super().apply(step, state)
        self.figures.append(dict(step.notes))
        return update, state


def measure_hardness(
    model: Any,
    task: Task,
    split: Split,
    recipe: Seams,
    settings: Settings,
    skip: int = 5,
    window: int = 20,
    blend: HAMU | None = None,
) -> Hardness:
    """Measure how hard it is to forget here, over some steps on a copy of the model.

    Args:
        model: The model; it is left as it is.
        task: Its task.
        split: The data.
        recipe: The terms of forgetting and retaining.
        settings: The settings of the trial. Its ``lr`` is that of plain gradient descent.
        skip: First steps that are not counted. At a minimum of the joint loss both gradients oppose each
            other whatever the data, so the first steps say nothing.
        window: The steps that are counted.
        blend: How a step trades forgetting against retaining; None: HAMU with its defaults.
    """
    chosen = dataclasses.replace(blend or HAMU(), stop=False, on_infeasible="clip")
    trial = _Trial(**{field.name: getattr(chosen, field.name) for field in dataclasses.fields(HAMU)})
    trial_recipe = dataclasses.replace(recipe, blend=trial)
    trial_settings = dataclasses.replace(settings, max_steps=skip + window)
    loop.run_recipe(copy.deepcopy(model), task, split, trial_recipe, trial_settings, quiet=True)
    figures = trial.figures[skip:]
    names = ("cosine", "damaged", "stop", "forget", "retain")
    means = {name: sum(row[f"blend/{name}"] for row in figures) / len(figures) for name in names}
    return Hardness(len(figures), **means)
