"""Gradient ascent: raise the loss of the forget set. The control for what careless forgetting costs."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "gradient_ascent",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("forget",),
    taxonomy="global.ascent",
    fidelity="code",
    cost="1 forward, 1 backward",
)
def gradient_ascent() -> Recipe:
    """Ascend on the forget set alone; unbounded, it ends by destroying the model."""
    return Recipe(terms=(Term("forget", "ascent"),))
