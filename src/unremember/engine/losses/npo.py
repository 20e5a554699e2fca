"""Negative preference optimisation (NPO)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from unremember.engine.losses import ANSWER, PlainLoss
from unremember.engine.seams import State
from unremember.errors import require_positive
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


@losses.register(
    "npo",
    paper="Negative Preference Optimization",
    arxiv="2404.05868",
    needs=("answer", "original model"),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class NPO(PlainLoss):
    """Lower the answer's probability against the original: -(2/β) log σ(-β log(p/p₀)) on whole sequences.

    It is bounded, and tends to ascent as β → 0. p₀ is the frozen original, one cached figure a sequence.

    Args:
        beta: β, above 0: a larger one stops sooner.
    """

    beta: float = 0.1
    reference_needs: ClassVar[tuple[Need, ...]] = (ANSWER,)

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        ratio = view.read(ANSWER).sum() - reference.read(ANSWER).sum()
        return -2 / self.beta * F.logsigmoid(-self.beta * ratio), state
