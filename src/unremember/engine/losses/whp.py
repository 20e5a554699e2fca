"""Who's Harry Potter: learn what the original would say without what further learning makes more likely."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from torch import Tensor

from unremember.engine.losses import LOGITS, PlainLoss
from unremember.engine.losses.soft import soft_cross_entropy
from unremember.engine.seams import State
from unremember.errors import require_not_negative
from unremember.registry import losses
from unremember.tasks.protocol import Need, View


def generic_logits(original: Tensor, reinforced: Tensor, strength: float) -> Tensor:
    """Return float[..., V], the original's logits less ``strength`` × what the reinforced model adds."""
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
    """Take cross-entropy to what the original says without what further learning of the forget set adds.

    This generic distribution is made from the original and a model that learned the forget set further.

    Averaged over the answer's tokens of the step.

    Args:
        reinforced: The folder of the model that learned the forget set further.
        strength: How much of what that model adds to a logit is taken off.
    """

    reinforced: str = dataclasses.field(default="", repr=False)
    strength: float = 5.0
    needs: ClassVar[tuple[Need, ...]] = (LOGITS,)
    per: ClassVar[Literal["example", "token"]] = "token"

    def __post_init__(self) -> None:
        require_not_negative(self, "strength")

    @property
    def reinforced_need(self) -> Need:
        """What is read of the reinforced model."""
        return dataclasses.replace(LOGITS, of=self.reinforced)

    @property
    def reference_needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        """What is read of frozen models."""
        return (LOGITS, self.reinforced_need)

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        logits = view.read(LOGITS)
        original, reinforced = reference.read(LOGITS).values, reference.read(self.reinforced_need).values
        teacher = generic_logits(original, reinforced, self.strength)
        return dataclasses.replace(logits, values=soft_cross_entropy(logits.values, teacher)).sum(), state
