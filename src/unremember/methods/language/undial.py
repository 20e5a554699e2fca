"""UNDIAL: self-distillation from the original with the memorised tokens' logits lowered."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "undial",
    paper="UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models",
    arxiv="2402.10052",
    needs=("forget", "retain"),
    taxonomy="global.distillation",
    fidelity="code",
    cost="1 forward, 1 backward, the original's output layer; 2 and 2 with α",
)
def undial(beta: float = 10.0, gamma: float = 1.0, alpha: float = 0.0) -> Recipe:
    """Teach the forget set anew, by the original with each answer token's logit lowered; bounded.

    Args:
        beta: How much the logit is lowered.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term; 0: none.
    """
    retain = (Term("retain", "nll", alpha),) if alpha else ()
    return Recipe(terms=(Term("forget", {"name": "undial", "beta": beta}, gamma), *retain))
