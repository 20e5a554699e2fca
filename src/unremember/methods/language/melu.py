"""MELU: any forget loss; each row meets the neighbourhood of its own entity."""

from typing import Any

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "melu",
    paper="Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning",
    arxiv="2509.05316",
    needs=("forget", "retain", "entity", "neighbour", "relation"),
    taxonomy="global.ascent",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def melu(
    base: Any = "npo",
    order: str = "shuffled",
    exposure: str = "as_published",
    gamma: float = 1.0,
    alpha: float = 1.0,
) -> Recipe:
    """Minimise γ · ``base`` on the forget set + α · NLL on the retain set, paired by entity.

    An epoch is as long as all neighbourhoods together: many more steps than a paired epoch on the same data.
    The sampling ``melu`` describes its parameters in full.

    Args:
        base: Any forget loss (the study's: ascent, npo, dpo).
        order: Order of the pairs in an epoch: ``shuffled``, ``blocks`` or ``stratified``.
        exposure: ``as_published``, or ``balanced``: every forget row gets the same weight over an epoch.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(
        terms=(Term("forget", base, gamma), Term("retain", "nll", alpha)),
        sampling={"name": "melu", "order": order, "exposure": exposure},
        owns=("sampling",),
    )
