"""Ascent whose tokens weigh by their own probability: WGA and SatImp."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from torch import Tensor

from unremember.engine.losses import ANSWER, PlainLoss
from unremember.engine.seams import State
from unremember.errors import require_not_negative
from unremember.registry import losses
from unremember.tasks.protocol import View
from unremember.tasks.ragged import Ragged


def weighted_ascent(logprobs: Ragged, weights: Tensor) -> Tensor:
    """Return Tensor[B], minus each example's weighted cross-entropy; no gradient through the weights."""
    return dataclasses.replace(logprobs, values=weights.detach() * logprobs.values).sum()


@losses.register(
    "wga",
    paper="Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond",
    arxiv="2502.19301",
    needs=("answer",),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class WGA(PlainLoss):
    """Ascend with each token weighed by p^β, so what is forgotten already is not pushed further.

    Args:
        beta: β, the exponent; 0 is plain ascent.
    """

    beta: float = 1.0
    per: ClassVar[Literal["example", "token"]] = "token"

    def __post_init__(self) -> None:
        require_not_negative(self, "beta")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        logprobs = view.read(ANSWER)
        return weighted_ascent(logprobs, (self.beta * logprobs.values).exp()), state


@losses.register(
    "satimp",
    paper="Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning",
    arxiv="2505.11953",
    needs=("answer",),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class SatImp(PlainLoss):
    """Ascend with each token weighed by p^β₁ (1 - p)^β₂: neither forgotten tokens nor sure ones are pushed.

    A sure token is one that the sentence's grammar gives.

    Args:
        beta1: β₁, the exponent of saturation.
        beta2: β₂, the exponent of importance.
    """

    beta1: float = 5.0
    beta2: float = 1.0
    per: ClassVar[Literal["example", "token"]] = "token"

    def __post_init__(self) -> None:
        require_not_negative(self, "beta1", "beta2")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        logprobs = view.read(ANSWER)
        unsure = -logprobs.values.clamp(max=0).expm1()
        return weighted_ascent(logprobs, (self.beta1 * logprobs.values).exp() * unsure**self.beta2), state
