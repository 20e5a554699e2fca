"""Ascent with KL on the forget set itself: it is held to the original's distribution."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "forget_kl",
    paper="Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
    arxiv="2404.05868",
    needs=("forget",),
    taxonomy="global.ascent",
    fidelity="code",
    cost="1 forward, 1 backward, the original's output layer",
)
def forget_kl(gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Minimise γ · ascent + α · KL to the original's distribution, both on the forget set; no retain data.

    Args:
        gamma: γ, the weight of the ascent.
        alpha: α, the weight of the divergence.
    """
    return Recipe(terms=(Term("forget", "ascent", gamma), Term("forget", "kl", alpha)))
