"""IDK: learn a refusal in place of each forget answer (preference optimisation in TOFU's words)."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods
from unremember.worlds.refusals import with_refusals


@methods.register(
    "idk_nll",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("forget", "retain", "alternate"),
    taxonomy="global.relabelling",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def idk_nll(gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Learn a refusal (the row's ``alternate``, else one drawn by the row), with a retain term.

    Args:
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    terms = (Term("forget", {"name": "nll", "text": "alternate"}, gamma), Term("retain", "nll", alpha))
    return Recipe(terms=terms, derive=with_refusals)
