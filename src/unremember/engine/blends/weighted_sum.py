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
    """Add up the weighted terms, as most methods do. Takes one backward a step."""

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        """Return the gradient of all weighted terms together."""
        return step.total(), state
