"""GUARD: a forget loss whose rows weigh less, the more forgetting them would hurt the retain set."""

from typing import Any

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "guard_attribution",
    paper="GUARD: Guided Unlearning and Retention via Data Attribution for Large Language Models",
    arxiv="2506.10946",
    needs=("forget", "retain", "gradients"),
    taxonomy="global.ascent",
    fidelity="reconstruction",
    cost="2 forwards, 2 backwards; a reading, twice an epoch: 1 backward over 512 retain rows, "
    "1 forward-mode pass over the forget rows",
)
def guard_attribution(
    base: Any = "npo",
    tau: float = 1.0,
    floor: float = 0.1,
    per_epoch: float = 2.0,
    gamma: float = 1.0,
    alpha: float = 1.0,
) -> Recipe:
    """Minimise γ · ``base`` on the forget set, weighted by attribution, + α · NLL on the retain set.

    The sampling ``guard_attribution`` describes its parameters in full.

    Args:
        base: Any forget loss.
        tau: Temperature of the weights, in standard deviations of the scores.
        floor: The least weight.
        per_epoch: Readings of the model an epoch. 0 weighs once, before training: the paper's protocol as far
            as its abstract tells, with which we measured less retention than without weights.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(
        terms=(Term("forget", base, gamma), Term("retain", "nll", alpha)),
        sampling={"name": "guard_attribution", "tau": tau, "floor": floor, "per_epoch": per_epoch},
        owns=("sampling",),
    )
