"""Primal-dual: the retain loss is a constraint, and its weight grows for as long as it is broken."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from unremember.engine.blends import PlainBlend, combine
from unremember.engine.seams import Context, State
from unremember.engine.step import StepContext
from unremember.errors import require_not_negative
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
    """Forget subject to a retain loss of at most ``eps``: its weight is a multiplier that adapts.

    The multiplier moves by ``step`` × (loss - eps) once an optimiser step, on the whole step's loss, and
    never below 0.

    Args:
        eps: Bound on the retain loss, in nats a token.
        start: The multiplier at the start.
        step: Step size of the multiplier.
        warmup: Epochs of the forget set in which the multiplier does not move.
    """

    eps: float = 0.3
    start: float = 1.0
    step: float = 1.0
    warmup: float = 5.0

    def __post_init__(self) -> None:
        require_not_negative(self, "eps", "start", "step", "warmup")

    def init(self, context: Context) -> State:
        """Start the multiplier, and count the steps of the warm-up."""
        rows = len(context.keys[context.roles[0]])
        return {
            "dual": self.start,
            "steps": 0,
            "warmup_steps": round(self.warmup * -(-rows // context.batch_size)),
        }

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        """Return the sum of the role gradients, the retain role's times the multiplier."""
        # 1. Primal step: descend on the Lagrangian.
        gradients = step.gradients()
        dual = state["dual"]
        update = combine(gradients, [dual if role == "retain" else 1.0 for role in gradients])
        step.note(dual=dual)
        # 2. Dual step: ascend on the violation of the constraint.
        if state["steps"] >= state["warmup_steps"]:
            dual = max(0.0, dual + self.step * (step.loss("retain") - self.eps))
        return update, {**state, "dual": dual, "steps": state["steps"] + 1}
