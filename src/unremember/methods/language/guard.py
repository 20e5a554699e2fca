"""GUARD: a forget loss whose rows weigh less the more forgetting them would hurt the retain set."""

from typing import Any

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "guard",
    paper="GUARD: Guided Unlearning and Retention via Data Attribution for Large Language Models",
    arxiv="2506.10946",
    needs=("forget", "retain", "gradients"),
    taxonomy="global.ascent",
    fidelity="reconstruction",
    cost="2 forwards, 2 backwards; a reading, twice an epoch: 1 backward over 512 retain rows, "
    "1 forward-mode pass over the forget rows",
)
def guard(
    base: Any = "npo",
    tau: float = 1.0,
    floor: float = 0.1,
    per_epoch: float = 2.0,
    gamma: float = 1.0,
    alpha: float = 1.0,
) -> Recipe:
    """γ · ``base`` on the forget set, weighted by attribution, + α · NLL on the retain set.

    ``base`` is any forget loss. ``per_epoch=0`` weighs once, before training: the paper's protocol as far as its abstract
    tells, with which we measured less retention than without weights. The parameters are those of the sampling ``guard``.
    """
    return Recipe(
        terms=(Term("forget", base, gamma), Term("retain", "nll", alpha)),
        sampling={"name": "guard", "tau": tau, "floor": floor, "per_epoch": per_epoch},
        owns=("sampling",),
    )
