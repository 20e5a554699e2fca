"""Pruning: if a few small weights hold the forgetting, removing them brings the knowledge back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unremember.audits.attacks import Evaluate, Subject, evaluate_amounts, with_changed_weights
from unremember.errors import require_shares
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

    def __post_init__(self) -> None:
        require_shares(self, "shares")

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        evaluate_amounts(subject, self.shares, prune_model, evaluate)


def prune_model(model: Any, share: float) -> Any:
    """Return a copy of the model without the smallest weights of every matrix."""
    return with_changed_weights(model, partial(prune_smallest, share=share))


def prune_smallest(weight: Tensor, share: float) -> Tensor:
    """Return a weight with its ⌊share · size⌋ smallest entries set to zero."""
    flat = weight.flatten().clone()
    flat[torch.topk(flat.abs(), int(share * flat.numel()), largest=False).indices] = 0
    return flat.view_as(weight)
