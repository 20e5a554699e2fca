"""Answer preservation (AP): a retain row's answer stays likelier than a refusal."""

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
    "answer_preservation",
    paper="A Closer Look at Machine Unlearning for Large Language Models",
    arxiv="2410.08109",
    needs=("answer", "alternate"),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class AnswerPreservation(PlainLoss):
    """Keep the answer likelier than the alternate: -(1/β) log σ(β log(p(answer) / p(alternate))).

    The probabilities are those of whole sequences; there is no reference.

    Args:
        beta: β, above 0: a larger one fades sooner once the answer leads.
    """

    beta: float = 0.1
    needs: ClassVar[tuple[Need, ...]] = (ANSWER, ALTERNATE)

    def __post_init__(self) -> None:
        require_positive(self, "beta")

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        ratio = view.read(ANSWER).sum() - view.read(ALTERNATE).sum()
        return -1 / self.beta * F.logsigmoid(self.beta * ratio), state
