"""PDU: flat logits on the forget set, subject to a bound on the retain loss."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "pdu",
    paper="Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models",
    arxiv="2506.05314",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def pdu(
    eps: float = 0.3, start: float = 1.0, step: float = 1.0, warmup: float = 5.0, gamma: float = 1.0
) -> Recipe:
    """Flatten the logits on the forget set while the retain loss stays below ``eps``: its weight adapts.

    The weight is the multiplier of the blend ``primal_dual``.

    Args:
        eps: Bound on the retain loss, in nats a token. It belongs to the model: a little above its retain
            loss.
        start: The multiplier at the start.
        step: Step size of the multiplier.
        warmup: Epochs of the forget set in which the multiplier does not move.
        gamma: Weight of the forget term.
    """
    return Recipe(
        terms=(Term("forget", "flatten", gamma), Term("retain", "nll")),
        blend={"name": "primal_dual", "eps": eps, "start": start, "step": step, "warmup": warmup},
        owns=("blend",),
    )
