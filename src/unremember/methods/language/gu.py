"""GU: any forget loss, made harmless to the retain set to first order."""

from typing import Any

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "gu",
    paper="Geometric-disentanglement Unlearning",
    arxiv="2511.17100",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def gu(
    base: Any = "npo",
    rule: str = "cone",
    at: str = "delta",
    gamma: float = 1.0,
    alpha: float = 1.0,
    history: int = 8,
) -> Recipe:
    """γ · ``base`` on the forget set (any loss) + α · NLL on the retain set, the change projected.

    With α = 0 the retain batch is still drawn and protects. The other parameters are those of the blend ``gu``.
    """
    return Recipe(
        terms=(Term("forget", base, gamma), Term("retain", "nll")),
        blend={"name": "gu", "rule": rule, "at": at, "alpha": alpha, "history": history},
        owns=("blend",),
    )
