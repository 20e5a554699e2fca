"""AltPO: prefer answers that the model invented itself over the one to forget."""

import dataclasses
import hashlib
from pathlib import Path

from unremember.data.alternates import read_invented
from unremember.data.split import Split
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "altpo",
    paper="Alternate Preference Optimization for Unlearning Factual Knowledge in Large Language Models",
    arxiv="2409.13474",
    needs=("forget", "retain", "alternate"),
    taxonomy="global.preference",
    fidelity="code",
    cost="3 forwards, 3 backwards",
)
def altpo(alternates: str = "", beta: float = 0.1, gamma: float = 1.0, alpha: float = 1.0) -> Recipe:
    """Prefer plausible invented answers over those to forget (DPO without refusals), with a retain term.

    Args:
        alternates: The file of answers that the original invented (``unremember alternates``): each row is
            met once an epoch with each of its own. Without a file the rows' ``alternate`` column is taken.
        beta: β of DPO, the temperature.
        gamma: Weight of the forget term.
        alpha: Weight of the retain term.
    """
    derive = Invented(alternates) if alternates else None
    return Recipe(
        terms=(Term("forget", {"name": "dpo", "beta": beta}, gamma), Term("retain", "nll", alpha)),
        derive=derive,
    )


@dataclasses.dataclass(frozen=True)
class Invented:
    """Puts invented answers into the ``alternate`` column of the forget rows.

    Args:
        file: The file that holds them.
    """

    file: str

    @property
    def digest(self) -> str:
        """SHA-256 (16 hex digits) of what the file says; its path does not matter."""
        return hashlib.sha256(Path(self.file).read_bytes()).hexdigest()[:16]

    def __call__(self, split: Split) -> Split:
        return split.with_rows(forget=read_invented(Path(self.file), split["forget"]))
