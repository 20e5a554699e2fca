"""Negative preference optimisation with a retain term."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "npo",
    paper="Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
    arxiv="2404.05868",
    needs=("forget", "retain"),
    taxonomy="global.preference",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def npo(beta: float = 0.1, gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Lower the probability of the forget answers relative to the original; the gradient fades as they do.

    Args:
        beta: β of NPO: a larger one stops sooner; 0.1 is the paper's.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(terms=(Term("forget", {"name": "npo", "beta": beta}, gamma), Term("retain", "nll", alpha)))
