"""KLUE: gradient difference on the forget set's knowledge neurons, over the rows not forgotten yet."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "klue",
    paper="FaithUn: Toward Faithful Forgetting in Language Models",
    arxiv="2502.19207",
    needs=("forget", "retain"),
    taxonomy="local.retraining",
    fidelity="reconstruction",
    cost="2 forwards, 2 backwards; 1 forward a forget row and option a pass; "
    "once 1 + mismatched a forget row",
)
def klue(
    share: float = 0.01,
    regularisation: float = 1.0,
    mismatched: int = 8,
    gamma: float = 1.0,
    alpha: float = 1.0,
) -> Recipe:
    """Ascend on forget rows the model still answers and descend on retain rows, in a few MLP neurons.

    γ · ascent + α · cross-entropy. The paper publishes no code: localisation and sample selection follow its
    text, their constants are ours.

    Args:
        share: The part of all MLP neurons that may move.
        regularisation: Weight of what an answer lights up without its question.
        mismatched: Other questions each answer is measured under.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(
        # 1. Gradient difference, …
        terms=(Term("forget", "ascent", gamma), Term("retain", "nll", alpha)),
        # 2. … over the forget rows that the model still answers (sample selection), …
        sampling="unforgotten",
        # 3. … on the neurons of the forget rows' contextual knowledge, localised once.
        selection={
            "name": "knowledge_neurons",
            "share": share,
            "regularisation": regularisation,
            "mismatched": mismatched,
        },
        owns=("sampling", "selection"),
    )
