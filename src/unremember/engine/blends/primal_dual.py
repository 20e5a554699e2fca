"""Primal-dual: the retain loss is a constraint, and its weight grows for as long as it is broken."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from unremember.engine.blends import PlainBlend, combine
from unremember.engine.seams import Context, State
from unremember.engine.step import StepContext
from unremember.registry import blends


@blends.register(
    "primal_dual",
    paper="Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models",
    arxiv="2506.05314",
    needs=("retain",),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class PrimalDual(PlainBlend):
    """Forget subject to a retain loss of at most ``eps``: its multiplier moves by ``step`` × (loss - eps), and never below 0.

    It starts at ``start`` and rests for ``warmup`` epochs of the forget set; one update an optimiser step, on the whole
    step's loss.
    """

    eps: float = 0.3
    start: float = 1.0
    step: float = 1.0
    warmup: float = 5.0

    def init(self, context: Context) -> State:
        anchor = len(context.keys[context.roles[0]])
        return {"dual": self.start, "seen": 0, "rests": round(self.warmup * -(-anchor // context.batch_size))}

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        found = step.gradients()
        dual = state["dual"]
        update = combine(found, [dual if role == "retain" else 1.0 for role in found])
        step.note(dual=dual)
        if state["seen"] >= state["rests"]:
            dual = max(0.0, dual + self.step * (step.loss("retain") - self.eps))
        return update, {**state, "dual": dual, "seen": state["seen"] + 1}
