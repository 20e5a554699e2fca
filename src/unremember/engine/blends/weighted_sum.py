"""The weighted sum: one backward over the weighted losses of all roles."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from unremember.engine.blends import PlainBlend
from unremember.engine.seams import State
from unremember.engine.step import StepContext
from unremember.registry import blends


@blends.register("sum", fidelity="code")
@dataclasses.dataclass(frozen=True)
class WeightedSum(PlainBlend):
    """The sum of the weighted terms: what most methods do. Takes one backward a step."""

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        return step.total(), state
