"""FLAT: a template answer in place of the one to forget, from forget data alone."""

from typing import Literal

from unremember.data.alternates import with_alternates
from unremember.data.split import Split
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods
from unremember.worlds.refusals import with_refusals

_NORMAL = (
    "The train left a little after noon.",
    "It rained over the hills all morning.",
    "Two cups of flour are enough for this bread.",
    "The garden is at its best in early June.",
    "They painted the fence green last summer.",
    "The library opens at nine on weekdays.",
    "A light wind came up from the lake.",
    "The third chapter is the longest of all.",
)


@methods.register(
    "flat",
    paper="LLM Unlearning via Loss Adjustment with Only Forget Data",
    arxiv="2410.11143",
    needs=("forget", "alternate"),
    taxonomy="global.preference",
    fidelity="code",
    cost="2 forwards, 2 backwards",
)
def flat(
    divergence: Literal["kl", "tv", "js", "pearson"] = "kl",
    template: Literal["refusal", "normal"] = "refusal",
    alpha: float = 0.0,
) -> Recipe:
    """Lower each forget answer's mean probability and raise a template's; no retain data, no reference.

    Without a retain term, stop early.

    Args:
        divergence: The f-divergence that weighs the two sides.
        template: ``refusal``: a row's ``alternate`` or, where it has none, a refusal drawn by the row.
            ``normal``: an everyday sentence that has nothing to do with the question.
        alpha: Weight of the retain term; 0: none.
    """
    derive = {"refusal": with_refusals, "normal": with_everyday_answers}[template]
    retain = (Term("retain", "nll", alpha),) if alpha else ()
    return Recipe(terms=(Term("forget", {"name": "flat", "divergence": divergence}), *retain), derive=derive)


def with_everyday_answers(split: Split) -> Split:
    """Return the split whose forget rows have an everyday sentence for ``alternate``."""
    return with_alternates(split, "forget", _NORMAL, keep=False)
