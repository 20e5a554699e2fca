"""IDK + AP: refusals on the forget set, answer preservation on the retain set."""

from unremember.data.alternates import with_alternates
from unremember.data.split import Split
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods
from unremember.worlds.refusals import REFUSALS, with_refusals


@methods.register(
    "idk_ap",
    paper="A Closer Look at Machine Unlearning for Large Language Models",
    arxiv="2410.08109",
    needs=("forget", "retain", "alternate"),
    taxonomy="global.relabelling",
    fidelity="code",
    cost="3 forwards, 3 backwards",
)
def idk_ap(beta: float = 0.1, gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Learn refusals on the forget set while every retain answer stays likelier than a refusal; no reference.

    Rows without an ``alternate`` get a refusal that is drawn by the row, on both sides.

    Args:
        beta: β of answer preservation, the temperature.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    terms = (
        Term("forget", {"name": "nll", "text": "alternate"}, gamma),
        Term("retain", {"name": "answer_preservation", "beta": beta}, alpha),
    )
    return Recipe(terms=terms, derive=refusing_both)


def refusing_both(split: Split) -> Split:
    """Return the split whose forget and retain rows have a refusal for ``alternate`` where they had none."""
    return with_alternates(with_refusals(split), "retain", REFUSALS)
