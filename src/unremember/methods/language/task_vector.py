"""Task vector negation: learn the forget set by heart, then take that step back from the original."""

from typing import Any

from unremember.engine.seams import Recipe, Term
from unremember.registry import methods


@methods.register("task_vector", paper="Editing Models with Task Arithmetic", arxiv="2212.04089",
                  needs=("forget",), taxonomy="local.arithmetic", fidelity="code", cost="1 forward, 1 backward")  # fmt: skip
def task_vector(scale: float = 1.0, of: Any = "all") -> Recipe:
    """Over-fit a copy to the forget set, then subtract ``scale`` × what it learned from the original's weights.

    ``of`` chooses the weights that learn (``all``, ``lora`` …). How much is forgotten is set by the steps and ``scale``;
    while it runs the model is the learner, so it cannot be stopped at a level of forgetting.
    """
    return Recipe(terms=(Term("forget", "nll"),), selection={"name": "negate", "scale": scale, "of": of})
