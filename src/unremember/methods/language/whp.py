"""Who's Harry Potter: put what anyone might say in the place of what only the forget set says."""

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
    """Learn what the original says less ``strength`` × what further learning of the forget set makes likelier.

    ``reinforced`` is the folder of the model that learned it further (``unremember train -m ORIGINAL --only forget``). ``alpha``
    adds a retain term. The paper trains on the likeliest token alone, and puts common names in place of those of its books first.
    """
    kept = (Term("retain", "nll", alpha),) if alpha else ()
    return Recipe(
        terms=(Term("forget", {"name": "whp", "reinforced": reinforced, "strength": strength}, gamma), *kept)
    )
