"""The weighted sum: one backward over the weighted losses of all roles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from unremember.engine.blends import combine
from unremember.engine.seams import Context, State
from unremember.registry import blends


@blends.register("sum", fidelity="code")
@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """The sum of the weighted terms: what most methods do. Takes one backward a step."""

    fused: ClassVar[bool] = True

    def init(self, context: Context) -> State:
        return {}

    def apply(self, gradients: Mapping[str, Sequence[Tensor]], losses: Mapping[str, float],
              state: State) -> tuple[list[Tensor], State]:  # fmt: skip
        return combine(gradients, [1.0] * len(gradients)), state
