"""Direct preference optimisation of an alternate answer over the one to forget."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from unremember.engine.losses import ALTERNATE, ANSWER, PlainLoss
from unremember.engine.seams import State
from unremember.errors import require_positive
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


@losses.register(
    "dpo",
    paper="Direct Preference Optimization",
    arxiv="2305.18290",
    needs=("answer", "alternate", "original model"),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class DPO(PlainLoss):
    """Prefer the alternate over the answer, both against the original.

    -factor · log σ(β(log-ratio of the alternate - log-ratio of the answer)), ratios of sequence probabilities
    to those of the original.

    Args:
        beta: β, above 0, the temperature.
        factor: Scale of the loss, above 0; None is 2/β, the unlearning literature's, 1 the textbook's.
    """

    beta: float = 0.1
    factor: float | None = None
    needs: ClassVar[tuple[Need, ...]] = (ANSWER, ALTERNATE)
    reference_needs: ClassVar[tuple[Need, ...]] = (ANSWER, ALTERNATE)

    def __post_init__(self) -> None:
        require_positive(self, "beta")
        if self.factor is not None:
            require_positive(self, "factor")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        win = view.read(ALTERNATE).sum() - reference.read(ALTERNATE).sum()
        lose = view.read(ANSWER).sum() - reference.read(ANSWER).sum()
        factor = 2 / self.beta if self.factor is None else self.factor
        return -factor * F.logsigmoid(self.beta * (win - lose)), state
