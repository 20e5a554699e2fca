"""Representation misdirection for unlearning (RMU)."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "rmu",
    paper="The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning",
    arxiv="2403.03218",
    needs=("forget", "retain", "hidden states"),
    taxonomy="local.retraining",
    fidelity="code",
    cost="2 partial forwards and backwards",
)
def rmu(layer: int = 1, coefficient: float = 2.0, gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Steer the forget set's states at ``layer`` to a random direction, hold the retain set's.

    Only the MLP output projections of the blocks ``layer - 2 … layer`` move; the forward stops at ``layer``.

    Args:
        layer: The block whose output is steered.
        coefficient: Length of the random direction.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    return Recipe(
        terms=(
            Term("forget", {"name": "steer", "layer": layer, "coefficient": coefficient}, gamma),
            Term("retain", {"name": "hold", "layer": layer}, alpha),
        ),
        selection={
            "name": "layers",
            "layers": [i for i in range(layer - 2, layer + 1) if i >= 0],
            "modules": r"down_proj|mlp\.c_proj|dense_4h_to_h|mlp\.fc2",
        },
    )
