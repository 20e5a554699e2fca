"""Blends: how the gradients of the roles become one update. One file a blend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from unremember.engine.seams import Context, State


class Plain:
    """What most blends share: a gradient for the optimiser, no correction, no further batch, no state."""

    raw: ClassVar[bool] = False
    corrects: ClassVar[bool] = False
    draws: ClassVar[int] = 0
    vectors: ClassVar[str] = "-"

    def init(self, context: Context) -> State:
        return {}

    def correct(self, change: list[Tensor], measure: Any, state: State) -> tuple[list[Tensor], State]:
        return change, state


def gram(measure: Any, gradients: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """float64 Tensor[R, R]: all inner products of the role gradients, in the mapping's order; one sum over the processes."""
    roles = list(gradients)
    out = torch.zeros(len(roles), len(roles), dtype=torch.float64)
    for i, left in enumerate(roles):
        for j, right in enumerate(roles[: i + 1]):
            out[i, j] = sum(torch.dot(a.flatten(), b.flatten()).double() for a, b in zip(gradients[left], gradients[right]))
            out[j, i] = out[i, j]
    return measure.summed(out)


def combine(gradients: Mapping[str, Sequence[Tensor]], coefficients: Sequence[float]) -> list[Tensor]:
    """Σ coefficient · gradient over the roles, parameter by parameter."""
    return [sum(c * g for c, g in zip(coefficients, together)) for together in zip(*gradients.values())]
