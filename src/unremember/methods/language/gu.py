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
    project: str = "delta",
    gamma: float = 1.0,
    alpha: float = 1.0,
    history: int = 8,
) -> Recipe:
    """Minimise γ · ``base`` on the forget set + α · NLL on the retain set, and project the change.

    With α = 0 the retain batch is still drawn and protects. The blend ``gu`` describes its parameters in
    full.

    Args:
        base: Any forget loss.
        rule: What is taken out: ``cone``, ``null`` or ``paper``.
        project: What is projected: the realised change (``delta``) or the forget ``gradient``.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
        history: Retain gradients of earlier steps that are protected.
    """
    return Recipe(
        terms=(Term("forget", base, gamma), Term("retain", "nll")),
        blend={"name": "gu", "rule": rule, "project": project, "alpha": alpha, "history": history},
        owns=("blend",),
    )
