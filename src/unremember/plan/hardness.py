"""Hardness: how far what is kept stands in the way of what is forgotten, from a trial on a copy of the model."""

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
    """Means over the ``steps`` of a trial: the ``cosine`` of what is kept and what is to be raised; the share of weight
    blocks ``damaged``; the share of steps that met the stop rule; the ``forget`` and ``retain`` rise of the losses a step."""

    steps: int
    cosine: float
    damaged: float
    stop: float
    forget: float
    retain: float

    @property
    def advice(self) -> str:
        """``go``: forgetting need not hurt; ``careful``: it will somewhere; ``stop``: most steps cannot avoid it."""
        return "stop" if self.stop > 0.5 else "careful" if self.stop > 0 or self.retain > 0 else "go"


@dataclasses.dataclass(frozen=True)
class Trial(HAMU):
    """HAMU that never stops and keeps what it logs."""

    seen: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def apply(self, measure: StepContext, state: State) -> tuple[list[Tensor], State]:
        update, state = super().apply(measure, state)
        self.seen.append(dict(measure.notes))
        return update, state


def hardness(
    model: Any,
    task: Task,
    split: Split,
    recipe: Seams,
    settings: Settings,
    skip: int = 5,
    window: int = 20,
    blend: HAMU | None = None,
) -> Hardness:
    """How hard it is to forget here: ``window`` steps on a copy of the model, after ``skip`` that are not counted.

    The first steps say nothing: at a minimum of the joint loss both gradients oppose each other whatever the data. The
    recipe's terms are run through ``blend`` (HAMU as it is), at ``settings.lr``, which is that of gradient descent.
    """
    chosen = dataclasses.replace(blend or HAMU(), stop=False, on_infeasible="clip")
    trial = Trial(**{field.name: getattr(chosen, field.name) for field in dataclasses.fields(HAMU)})
    changed = dataclasses.replace(settings, max_steps=skip + window)
    loop.run_recipe(
        copy.deepcopy(model), task, split, dataclasses.replace(recipe, blend=trial), changed, quiet=True
    )
    rows = trial.seen[skip:]
    names = ("cosine", "damaged", "stop", "forget", "retain")
    return Hardness(
        len(rows), **{name: sum(row[f"blend/{name}"] for row in rows) / len(rows) for name in names}
    )
