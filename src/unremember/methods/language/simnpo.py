"""SimNPO with a retain term."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "simnpo",
    paper="Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning",
    arxiv="2410.07163",
    needs=("forget", "retain"),
    taxonomy="global.preference",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def simnpo(beta: float = 4.5, delta: float = 0.0, gamma: float = 0.125, alpha: float = 1.0) -> Recipe:
    """Lower the forget answers' mean log-probability a token (NPO normalised by length), without a reference.

    Args:
        beta: β of SimNPO: a larger one stops sooner.
        delta: δ, the loss in nats a token at which the push is half as strong.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    loss = {"name": "simnpo", "beta": beta, "delta": delta}
    return Recipe(terms=(Term("forget", loss, gamma), Term("retain", "nll", alpha)))
