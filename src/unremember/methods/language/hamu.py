"""HAMU: the least damaging step that still forgets a set amount."""

from typing import Any

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "hamu",
    paper="How Hard Can It Be? Hardness-Aware Multi-Objective Unlearning",
    arxiv="2606.02119",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def hamu(
    base: Any = "ascent",
    variant: str = "q",
    constraint: str = "relative",
    amount: float = 0.3,
    granularity: str = "tensor",
    stop: bool = False,
) -> Recipe:
    """Trade ``base`` on the forget set against NLL on the retain set by their hardness.

    ``lr`` is that of gradient descent: Adam takes no part. The blend ``hamu`` describes its parameters in
    full.

    Args:
        base: Any forget loss; ascent is the paper's.
        variant: ``q``: keep most while forgetting by enough; ``u``: the reverse.
        constraint: Whether ``amount`` is ``relative`` to what is possible, or ``absolute``.
        amount: How much to forget a step.
        granularity: The blocks of weights: ``tensor``, ``layer`` or ``global``.
        stop: End the run where every step must damage what is kept.
    """
    blend = {
        "name": "hamu",
        "variant": variant,
        "constraint": constraint,
        "amount": amount,
        "granularity": granularity,
        "stop": stop,
    }
    return Recipe(terms=(Term("forget", base), Term("retain", "nll")), blend=blend, owns=("blend",))
