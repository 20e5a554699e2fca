"""FLAT: from forget data alone, a template answer in place of the one to forget."""

from typing import Literal

from unremember.data.alternates import alternates
from unremember.data.split import Split
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods
from unremember.worlds.refusals import refusing

NORMAL = (
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

    The template of a row is its ``alternate`` or, where it has none, a refusal drawn by the row; with ``normal`` it is
    an everyday sentence that has nothing to do with the question. ``alpha`` adds a retain term: without one, stop early.
    """
    derive = {"refusal": refusing, "normal": unrelated}[template]
    kept = (Term("retain", "nll", alpha),) if alpha else ()
    return Recipe(terms=(Term("forget", {"name": "flat", "divergence": divergence}), *kept), derive=derive)


def unrelated(split: Split) -> Split:
    """Forget rows with an everyday sentence for ``alternate``."""
    return alternates(split, "forget", NORMAL, keep=False)
