"""Random labels with a retain term."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "random_labels",
    needs=("forget", "retain"),
    taxonomy="global.relabelling",
    fidelity="own",
    cost="2 forwards, 2 backwards",
)
def random_labels(gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Learn random tokens in place of the forget answers' tokens, with a retain term.

    Args:
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(terms=(Term("forget", "random_labels", gamma), Term("retain", "nll", alpha)))
