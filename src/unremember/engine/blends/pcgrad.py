"""PCGrad: where two role gradients conflict, each loses its component along the other."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from unremember.engine.blends import PlainBlend, combine, gram
from unremember.engine.seams import Context, State
from unremember.engine.step import StepContext
from unremember.registry import blends


@blends.register(
    "pcgrad", paper="Gradient Surgery for Multi-Task Learning", arxiv="2001.06782", fidelity="paper"
)
@dataclasses.dataclass(frozen=True)
class PCGrad(PlainBlend):
    """Project each role's gradient off every other one that it opposes, then add them up.

    All inner products come from one small Gram matrix; ``projected`` counts the steps in which anything was
    removed.
    """

    def init(self, context: Context) -> State:
        """Start the counts at 0."""
        return {"projected": 0, "steps": 0}

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        """Return the sum of the projected role gradients."""
        gradients = step.gradients()
        inner = gram(step, gradients)
        # Row i holds the coefficients of role i's projected gradient in the role gradients.
        mix = torch.eye(len(gradients), dtype=torch.float64)
        for i in range(len(gradients)):
            for j in range(len(gradients)):
                dot = mix[i] @ inner[:, j]
                if i != j and dot < 0 < inner[j, j]:
                    mix[i, j] -= dot / inner[j, j]
        projected = not torch.equal(mix, torch.eye(len(gradients), dtype=torch.float64))
        state = {"projected": state["projected"] + projected, "steps": state["steps"] + 1}
        step.note(projected=projected)
        return combine(gradients, mix.sum(0).tolist()), state
