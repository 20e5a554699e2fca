"""SimNPO: NPO without a reference, on length-normalised log-probabilities."""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor

from unremember.engine.losses import ANSWER, PlainLoss
from unremember.engine.seams import State
from unremember.errors import require_positive
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
    """Raise the answer's mean loss s without a reference: -(2/β) log σ(β(s - δ)).

    s is the mean negative log-probability of the answer's tokens.

    Args:
        beta: β, above 0: a larger one stops sooner.
        delta: δ, the loss in nats a token at which the push is half as strong.
    """

    beta: float = 4.5
    delta: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        loss = -view.read(ANSWER).mean()
        return -2 / self.beta * F.logsigmoid(self.beta * (loss - self.delta)), state
