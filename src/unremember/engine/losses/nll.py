"""Negative log-likelihood: the plain training loss, and its negation, gradient ascent."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from torch import Tensor

from unremember.engine.losses import ANSWER, PlainLoss
from unremember.engine.seams import State
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


@losses.register("nll", needs=("answer",), fidelity="code")
@dataclasses.dataclass(frozen=True)
class NLL(PlainLoss):
    """Take the cross-entropy of a text's tokens, averaged over the tokens of the step.

    Args:
        text: The column that is learned.
    """

    text: str = "answer"
    per: ClassVar[Literal["example", "token"]] = "token"

    @property
    def needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        """What is read of the model."""
        return (Need(self.text, "logprobs"),)

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        return -view.read(self.needs[0]).sum(), state


@losses.register(
    "ascent",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("answer",),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class Ascent(PlainLoss):
    """Take minus the cross-entropy of the answer, averaged over the tokens of the step: unbounded below."""

    per: ClassVar[Literal["example", "token"]] = "token"

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        return view.read(ANSWER).sum(), state
