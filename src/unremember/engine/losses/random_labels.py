"""Random labels: learn tokens drawn at random in place of the answer's."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unremember.engine.losses import LOGITS, PlainLoss
from unremember.engine.seams import Context, State
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


@losses.register("random_labels", needs=("answer",), fidelity="own")
@dataclasses.dataclass(frozen=True)
class RandomLabels(PlainLoss):
    """Take the cross-entropy of a uniformly drawn token at each position of the answer, drawn anew each time.

    The draws come from the run's seed and the number of forwards so far.
    """

    needs: ClassVar[tuple[Need, ...]] = (LOGITS,)
    per: ClassVar[Literal["example", "token"]] = "token"

    def init(self, context: Context) -> State:
        """Start the draws at the run's seed."""
        return {"seed": context.seed, "drawn": 0}

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        logits = view.read(LOGITS)
        generator = torch.Generator().manual_seed((state["seed"] << 32) + state["drawn"])
        labels = torch.randint(logits.values.shape[-1], (len(logits.values), 1), generator=generator).to(
            logits.values.device
        )
        rows = -logits.values.log_softmax(-1).gather(-1, labels)[:, 0]
        return dataclasses.replace(logits, values=rows).sum(), {**state, "drawn": state["drawn"] + 1}
