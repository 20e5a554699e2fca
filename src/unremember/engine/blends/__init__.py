"""Blends: how the gradients of the roles become one update. One file a blend; this one has the protocol."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from unremember.engine.seams import Context, State

if TYPE_CHECKING:
    from unremember.engine.step import StepContext


class Blend(Protocol):
    """How the gradients of the roles become one update: ``apply(step, state) -> ([Tensor], state)``.

    The blend asks the step for what it needs: the gradient of all roles together, of each role, of some roles
    at displaced weights, their losses, a further batch.

    Attributes:
        raw: Whether ``apply`` returns the change of the weights itself; else a gradient for the optimiser.
        corrects: Whether ``correct(change, step, state) -> (change, state)`` has the last word on the change
            that the optimiser really made.
        draws: The most further batches that a step takes.
        vectors: How the names of some entries of the state begin: those with one number for every entry of
            every weight, end to end. They are sharded as the weights are, and whole in a checkpoint.
    """

    @property
    def raw(self) -> bool: ...
    @property
    def corrects(self) -> bool: ...
    @property
    def draws(self) -> int: ...
    @property
    def vectors(self) -> str: ...
    def init(self, context: Context) -> State: ...
    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]: ...
    def correct(
        self, change: list[Tensor], step: StepContext, state: State
    ) -> tuple[list[Tensor], State]: ...


class PlainBlend:
    """What most blends share: a gradient for the optimiser, no correction, no further batch, no state."""

    raw: ClassVar[bool] = False
    corrects: ClassVar[bool] = False
    draws: ClassVar[int] = 0
    vectors: ClassVar[str] = "-"

    def init(self, context: Context) -> State:
        """Start with no state."""
        return {}

    def correct(self, change: list[Tensor], step: StepContext, state: State) -> tuple[list[Tensor], State]:
        """Leave the realised change as it is."""
        return change, state


def gram(step: Any, gradients: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """Return float64 Tensor[R, R], all inner products of the role gradients, in the order of the mapping.

    Processes exchange this one small table.
    """
    roles = list(gradients)
    table = torch.zeros(len(roles), len(roles), dtype=torch.float64)
    for i, left in enumerate(roles):
        for j, right in enumerate(roles[: i + 1]):
            table[i, j] = sum(
                torch.dot(a.flatten(), b.flatten()).double()
                for a, b in zip(gradients[left], gradients[right])
            )
            table[j, i] = table[i, j]
    return step.summed(table)


def combine(gradients: Mapping[str, Sequence[Tensor]], coefficients: Sequence[float]) -> list[Tensor]:
    """Return Σ coefficient · gradient over the roles, parameter by parameter."""
    return [sum(c * g for c, g in zip(coefficients, together)) for together in zip(*gradients.values())]


def forget_and_retain_gradients(step: Any) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Return the gradient of all forget roles together, and that of each retain role."""
    gradients = step.gradients()
    forget = [gradients[role] for role in step.forget_roles]
    summed = forget[0] if len(forget) == 1 else [functools.reduce(torch.add, parts) for parts in zip(*forget)]
    return summed, [gradients[role] for role in step.retain_roles]
