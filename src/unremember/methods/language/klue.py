"""KLUE: gradient difference on the knowledge neurons of the forget set, over the rows that are not forgotten yet."""

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
    cost="2 forwards, 2 backwards; 1 forward a forget row and option a pass; once 1 + mismatched a forget row",
)
def klue(
    share: float = 0.01,
    regularisation: float = 1.0,
    mismatched: int = 8,
    gamma: float = 1.0,
    alpha: float = 1.0,
) -> Recipe:
    """γ · ascent on forget rows the model still answers + α · cross-entropy on retain rows, in a few MLP neurons.

    The paper publishes no code: localisation and sample selection follow its text, their constants are ours.
    """
    return Recipe(
        terms=(Term("forget", "ascent", gamma), Term("retain", "nll", alpha)),
        sampling="unforgotten",
        selection={
            "name": "knowledge_neurons",
            "share": share,
            "regularisation": regularisation,
            "mismatched": mismatched,
        },
        owns=("sampling", "selection"),
    )
