"""Losses of image classifiers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from unremember.engine.losses import PlainLoss
from unremember.engine.seams import State
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


@losses.register("cross_entropy", needs=("input", "label"), fidelity="code")
@dataclasses.dataclass(frozen=True)
class CrossEntropy(PlainLoss):
    """Take the cross-entropy of the label; ``sign=-1`` ascends it.

    Args:
        sign: What the cross-entropy is multiplied with.
    """

    sign: float = 1.0
    needs: ClassVar[tuple[Need, ...]] = (Need("input", "logits"),)

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        labels = view.labels  # type: ignore[attr-defined]
        return self.sign * F.cross_entropy(view.read(self.needs[0]), labels, reduction="none"), state
