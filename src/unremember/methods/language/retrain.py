"""Retraining without the forget set: the oracle every other method is read against."""

from unremember.engine.seams import Recipe, Term
from unremember.registry import methods


@methods.register("retrain", needs=("retain", "fresh weights"),
                  taxonomy="around.retraining", fidelity="own", cost="1 forward, 1 backward", fresh=True)  # fmt: skip
def retrain() -> Recipe:
    """Train fresh weights on the retain set and the general roles alone: the retrained oracle."""
    return Recipe(terms=(Term("train", "nll"),))
