"""SatImp: ascent weighted by saturation and importance, with a retain term."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "satimp",
    paper="Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning",
    arxiv="2505.11953",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def satimp(beta1: float = 5.0, beta2: float = 1.0, gamma: float = 1.0, alpha: float = 0.1) -> Recipe:
    """Ascend with each token weighed by p^β₁ (1 - p)^β₂, with a retain term.

    The published configuration and documentation disagree on the weights: γ 0.1 and α 1 in the one, 1 and 0.1
    in the other.

    Args:
        beta1: β₁, the exponent of saturation.
        beta2: β₂, the exponent of importance.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(
        terms=(
            Term("forget", {"name": "satimp", "beta1": beta1, "beta2": beta2}, gamma),
            Term("retain", "nll", alpha),
        )
    )
