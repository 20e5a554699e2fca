"""Gradient difference (GradDiff): ascend on the forget set, descend on the retain set."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "gradient_difference",
    paper="Continual Learning and Private Unlearning",
    arxiv="2203.12817",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def gradient_difference(gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Minimise γ · ascent on the forget set + α · cross-entropy on the retain set.

    Args:
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(terms=(Term("forget", "ascent", gamma), Term("retain", "nll", alpha)))
