"""Retain descent: plain training on the retain set. The control of every method at matched steps."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "retain_descent",
    needs=("retain",),
    taxonomy="global.ascent",
    fidelity="own",
    cost="1 forward, 1 backward",
)
def retain_descent() -> Recipe:
    """Train on the retain set alone: it shows what any training does to the forget set."""
    return Recipe(terms=(Term("retain", "nll"),))
