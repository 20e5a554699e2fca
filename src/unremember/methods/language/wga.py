"""Weighted gradient ascent with a retain term."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "wga",
    paper="Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond",
    arxiv="2502.19301",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def wga(beta: float = 1.0, gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Ascend with each token weighed by its probability^β, with a retain term: it slows as it forgets.

    Args:
        beta: β, the exponent; 0 is plain ascent.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(terms=(Term("forget", {"name": "wga", "beta": beta}, gamma), Term("retain", "nll", alpha)))
