"""Kullback–Leibler divergence from the frozen original: keep what the model says of a role."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from torch import Tensor

from unremember.engine.losses import LOGITS, PlainLoss
from unremember.engine.losses.soft import soft_cross_entropy
from unremember.engine.seams import State
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


@losses.register(
    "kl",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("answer", "original model"),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class KL(PlainLoss):
    """Hold the model to the original: KL(original ‖ model) at the answer, averaged over tokens.

    The distributions are those that predict the answer's tokens; the mean is over the tokens of the step.

    The published code averages over prompt and padding as well, which makes the figure depend on the batch's
    width.
    """

    needs: ClassVar[tuple[Need, ...]] = (LOGITS,)
    reference_needs: ClassVar[tuple[Need, ...]] = (LOGITS,)
    per: ClassVar[Literal["example", "token"]] = "token"

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        logits, original = view.read(LOGITS), reference.read(LOGITS)
        rows = soft_cross_entropy(logits.values, original.values, divergence=True)
        return dataclasses.replace(logits, values=rows).sum(), state
