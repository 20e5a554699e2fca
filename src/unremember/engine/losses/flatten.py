"""The forget half of PDU: make the model say nothing in particular."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from torch import Tensor

from unremember.engine.losses import LOGITS, PlainLoss
from unremember.engine.seams import State
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


@losses.register(
    "flatten",
    paper="Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models",
    arxiv="2506.05314",
    needs=("answer",),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class Flatten(PlainLoss):
    """Flatten the logits that predict the answer: (greatest logit - mean logit)², averaged over tokens.

    The published code reads one position too late (its mask is not shifted): the last token in place of the
    first.
    """

    needs: ClassVar[tuple[Need, ...]] = (LOGITS,)
    per: ClassVar[Literal["example", "token"]] = "token"

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        logits = view.read(LOGITS)
        rows = (logits.values.amax(-1) - logits.values.mean(-1)).square()
        return dataclasses.replace(logits, values=rows).sum(), state
