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
    """Make the forget answers dispreferred against the original model; slows down as they fade."""
    return Recipe(terms=(Term("forget", {"name": "npo", "beta": beta}, gamma), Term("retain", "nll", alpha)))
