"""Who's Harry Potter: learn what the original would say without the tokens that further learning makes more likely."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from torch import Tensor

from unremember.engine.losses import LOGITS, PlainLoss
from unremember.engine.losses.soft import soft_cross_entropy
from unremember.engine.seams import State
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


def generic(original: Tensor, reinforced: Tensor, strength: float) -> Tensor:
    """float[..., V]: the original's logits, each lowered by ``strength`` × what the reinforced model raised it by."""
    return original - strength * (reinforced - original).relu()


@losses.register(
    "whp",
    paper="Who's Harry Potter? Approximate Unlearning in LLMs",
    arxiv="2310.02238",
    needs=("answer", "original model", "reinforced model"),
    fidelity="reconstruction",
)
@dataclasses.dataclass(frozen=True)
class WHP(PlainLoss):
    """Cross-entropy to the generic distribution of the original and of a ``reinforced`` model, which learned the forget set further.

    ``reinforced`` is that model's folder. Averaged over the answer's tokens of the step.
    """

    reinforced: str = dataclasses.field(default="", repr=False)
    strength: float = 5.0
    needs: ClassVar[tuple[Need, ...]] = (LOGITS,)
    per: ClassVar[Literal["example", "token"]] = "token"

    @property
    def second(self) -> Need:
        return dataclasses.replace(LOGITS, of=self.reinforced)

    @property
    def reference_needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        return (LOGITS, self.second)

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        logits = view.read(LOGITS)
        wanted = generic(reference.read(LOGITS).values, reference.read(self.second).values, self.strength)
        return dataclasses.replace(logits, values=soft_cross_entropy(logits.values, wanted)).sum(), state
