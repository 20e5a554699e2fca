"""OFMU: forgetting as an inner ascent, retaining as an outer repair."""

from typing import Any

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "ofmu",
    paper="OFMU: Optimization-Driven Framework for Machine Unlearning",
    arxiv="2509.22483",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="reconstruction",
    cost="31 forwards, 31 backwards; 43 with rho; 6 with beta=0",
)
def ofmu(base: Any = "npo", inner_steps: int = 5, beta: float = 0.1, rho: float = 0.0) -> Recipe:
    """Take five ascent steps decorrelated from the retain gradient, then one repairing retain step, a round.

    The blend ``ofmu`` describes its parameters in full.

    Args:
        base: The forget loss. The paper's, ``ascent``, has no maximum to be stationary at; NPO is bounded.
        inner_steps: Ascent steps of a round.
        beta: Weight of the similarity of the forget and the retain gradient.
        rho: Weight of the stationarity penalty. It scales with the square of the loss, so it is off until it
            is tuned to the model.
    """
    blend = {"name": "ofmu", "inner_steps": inner_steps, "beta": beta, "rho": rho}
    return Recipe(terms=(Term("forget", base), Term("retain", "nll")), blend=blend, owns=("blend",))
