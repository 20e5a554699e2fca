"""Who's Harry Potter: put what anyone might say in place of what only the forget set says."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "whp",
    paper="Who's Harry Potter? Approximate Unlearning in LLMs",
    arxiv="2310.02238",
    needs=("forget", "retain", "reinforced model"),
    taxonomy="global.distillation",
    fidelity="reconstruction",
    cost="1 forward, 1 backward, 2 output layers of frozen models; 2 and 2 with α",
)
def whp(reinforced: str = "", strength: float = 5.0, gamma: float = 1.0, alpha: float = 0.0) -> Recipe:
    """Learn what the original says, less ``strength`` × what further learning of the forget set adds.

    The paper trains on the likeliest token alone, and first puts common names in place of those of its books.

    Args:
        reinforced: The folder of the model that learned the forget set further
            (``unremember train -m ORIGINAL --only forget``).
        strength: How much of what that model adds to a logit is taken off.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term; 0: none.
    """
    retain = (Term("retain", "nll", alpha),) if alpha else ()
    return Recipe(
        terms=(
            Term("forget", {"name": "whp", "reinforced": reinforced, "strength": strength}, gamma),
            *retain,
        )
    )
