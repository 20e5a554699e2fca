"""DPO towards refusals (IdkDPO) or any alternate answer."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "dpo",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("forget", "retain", "alternate"),
    taxonomy="global.preference",
    fidelity="code",
    cost="3 forwards, 3 backwards",
)
def dpo(beta: float = 0.1, factor: float | None = None, gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Prefer each forget row's ``alternate`` (a refusal) over its answer, with a retain term.

    Args:
        beta: β of DPO, the temperature.
        factor: Scale of the loss; None is 2/β, the unlearning literature's, 1 the textbook's.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    loss = {"name": "dpo", "beta": beta, "factor": factor}
    return Recipe(terms=(Term("forget", loss, gamma), Term("retain", "nll", alpha)))
