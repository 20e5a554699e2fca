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
    """Ascent whose tokens weigh by their probability to the power β, with a retain term: it slows down as it forgets."""
    return Recipe(terms=(Term("forget", {"name": "wga", "beta": beta}, gamma), Term("retain", "nll", alpha)))
