"""SimNPO: NPO without a reference, on length-normalised log-probabilities."""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor

from unremember.engine.losses import ANSWER, PlainLoss
from unremember.engine.seams import State
from unremember.errors import above_zero
from unremember.registry import losses
from unremember.tasks.protocol import View


@losses.register(
    "simnpo",
    paper="Simplicity Prevails: Rethinking Negative Preference Optimization",
    arxiv="2410.07163",
    needs=("answer",),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class SimNPO(PlainLoss):
    """-(2/β) log σ(β(s - δ)), s = mean negative log-probability of the answer's tokens."""

    beta: float = 4.5
    delta: float = 0.0

    def __post_init__(self) -> None:
        above_zero(self, "beta")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        loss = -view.read(ANSWER).mean()
        return -2 / self.beta * F.logsigmoid(self.beta * (loss - self.delta)), state
