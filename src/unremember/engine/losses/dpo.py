"""Direct preference optimisation of an alternate answer over the one to forget."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from unremember.engine.losses import ALTERNATE, ANSWER, PlainLoss
from unremember.engine.seams import State
from unremember.errors import above_zero
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
    """-factor · log σ(β(log-ratio of the alternate - log-ratio of the answer)), ratios against the original.

    ``factor`` None is 2/β, the unlearning literature's scale; 1 is the textbook loss.
    """

    beta: float = 0.1
    factor: float | None = None
    needs: ClassVar[tuple[Need, ...]] = (ANSWER, ALTERNATE)
    reference_needs: ClassVar[tuple[Need, ...]] = (ANSWER, ALTERNATE)

    def __post_init__(self) -> None:
        above_zero(self, "beta")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        win = view.read(ALTERNATE).sum() - reference.read(ALTERNATE).sum()
        lose = view.read(ANSWER).sum() - reference.read(ANSWER).sum()
        factor = 2 / self.beta if self.factor is None else self.factor
        return -factor * F.logsigmoid(self.beta * (win - lose)), state
