"""UNDIAL: the original, with the memorised token's logit lowered, teaches the model."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unremember.engine.losses import LABELS, LOGITS, PlainLoss
from unremember.engine.losses.soft import soft_cross_entropy
from unremember.engine.seams import State
from unremember.errors import require_not_negative
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


@losses.register(
    "undial",
    paper="UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models",
    arxiv="2402.10052",
    needs=("answer", "original model"),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class UNDIAL(PlainLoss):
    """Take cross-entropy to the original's distribution, its logit of the answer's token lowered by ``beta``.

    Averaged over the answer's tokens of the step; the published code averages over prompt and padding as
    well.

    Args:
        beta: How much the logit is lowered.
    """

    beta: float = 10.0
    needs: ClassVar[tuple[Need, ...]] = (LOGITS, LABELS)
    reference_needs: ClassVar[tuple[Need, ...]] = (LOGITS,)
    per: ClassVar[Literal["example", "token"]] = "token"

    def __post_init__(self) -> None:
        require_not_negative(self, "beta")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        logits, labels = view.read(LOGITS), view.read(LABELS).values[:, None]
        original = reference.read(LOGITS).values
        teacher = original.scatter_add(-1, labels, torch.full_like(original[:, :1], -self.beta))
        return dataclasses.replace(logits, values=soft_cross_entropy(logits.values, teacher)).sum(), state
