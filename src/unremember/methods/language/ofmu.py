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
    """A round: five ascent steps decorrelated from the retain gradient, then one repairing retain step.

    ``base`` is the forget loss. The paper's, ``ascent``, has no maximum to be stationary at; NPO is bounded. ``rho``, the
    weight of the pull to stationarity, scales with the square of the loss, so it is off until it is tuned to the model.
    """
    blend = {"name": "ofmu", "inner_steps": inner_steps, "beta": beta, "rho": rho}
    return Recipe(terms=(Term("forget", base), Term("retain", "nll")), blend=blend, owns=("blend",))
