"""CE-U: cross-entropy unlearning."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "ceu",
    paper="CE-U: Cross Entropy Unlearning",
    arxiv="2503.01224",
    needs=("forget",),
    taxonomy="global.distillation",
    fidelity="code",
    cost="1 forward, 1 backward",
)
def ceu(skip: int = 1) -> Recipe:
    """Teach the forget set what the model would say without the answer's token; no retain data, no reference.

    Args:
        skip: How many tokens at the beginning of an answer are left alone.
    """
    return Recipe(terms=(Term("forget", {"name": "ceu", "skip": skip}),))
