"""MELU: any forget loss, each row met with the neighbourhood of its own entity."""

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
    """γ · ``base`` on the forget set + α · NLL on the retain set, paired by entity.

    ``base`` is any forget loss (the study's: ascent, npo, dpo). An epoch is as long as all neighbourhoods together: many
    more steps than a paired epoch on the same data. The parameters are those of the sampling ``melu``.
    """
    return Recipe(
        terms=(Term("forget", base, gamma), Term("retain", "nll", alpha)),
        sampling={"name": "melu", "order": order, "exposure": exposure},
        owns=("sampling",),
    )
