"""CE-U: cross-entropy to what the model itself would say without the answer's token."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unremember.engine.losses import LABELS, LOGITS, PlainLoss
from unremember.engine.losses.soft import soft_cross_entropy
from unremember.engine.seams import State
from unremember.errors import require_not_negative
from unremember.registry import losses
from unremember.tasks.protocol import Need, View
from unremember.tasks.ragged import Ragged


@losses.register(
    "ceu", paper="CE-U: Cross Entropy Unlearning", arxiv="2503.01224", needs=("answer",), fidelity="code"
)
@dataclasses.dataclass(frozen=True)
class CEU(PlainLoss):
    """Take cross-entropy to the model's own distribution with the answer's token struck out.

    It is averaged over the tokens read. No gradient passes through the target.

    Args:
        skip: How many tokens at the beginning of an answer are left alone.
    """

    skip: int = 1
    needs: ClassVar[tuple[Need, ...]] = (LOGITS, LABELS)
    per: ClassVar[Literal["example", "token"]] = "token"

    def __post_init__(self) -> None:
        require_not_negative(self, "skip")

    def tokens(self, counts: np.ndarray) -> np.ndarray:
        """Return int64[n], the tokens of each answer after the first ``skip``."""
        return np.maximum(counts - self.skip, 0)

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        logits, labels = view.read(LOGITS), view.read(LABELS).values[:, None]
        target = logits.values.detach().scatter(-1, labels, -torch.inf)
        rows = soft_cross_entropy(logits.values, target)
        return dataclasses.replace(logits, values=rows * after_first(logits, self.skip)).sum(), state


def after_first(texts: Ragged, skip: int) -> Tensor:
    """Return bool[M], whether a token is not among the first ``skip`` of its example."""
    starts = texts.counts.cumsum(0) - texts.counts
    positions = torch.arange(len(texts.values), device=texts.values.device)
    return positions >= torch.repeat_interleave(starts + skip, texts.counts)
