"""KL minimisation: ascent, with the retain set held to the original's distribution."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "kl",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="code",
    cost="2 forwards, 2 backwards, the original's output layer",
)
def kl(gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Minimise γ · ascent on the forget set + α · KL to the original's distribution on the retain set.

    Args:
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(terms=(Term("forget", "ascent", gamma), Term("retain", "kl", alpha)))
