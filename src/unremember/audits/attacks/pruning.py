"""Pruning: if a few small weights hold the forgetting, leaving them out brings the knowledge back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from unremember.audits.attacks import Evaluate, Subject, evaluate_amounts, with_changed_weights
from unremember.registry import attacks


@attacks.register(
    "pruning",
    paper="Learning both Weights and Connections for Efficient Neural Networks",
    arxiv="1506.02626",
    needs=("forget", "oracle", "original"),
    taxonomy="evaluation.recovery",
    fidelity="paper",
)
@dataclasses.dataclass(frozen=True)
class Pruning:
    """Set the smallest weights of every matrix to zero: the share of them is the amount."""

    shares: Sequence[float] = (0.1, 0.3, 0.5)
    unit = "share of the weights"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        evaluate_amounts(
            subject,
            self.shares,
            lambda model, amount: with_changed_weights(model, lambda weight: pruned(weight, amount)),
            evaluate,
        )


def pruned(weight: Tensor, share: float) -> Tensor:
    """The weight without its ⌊share · size⌋ smallest entries."""
    flat = weight.flatten().clone()
    flat[torch.topk(flat.abs(), int(share * flat.numel()), largest=False).indices] = 0
    return flat.view_as(weight)
