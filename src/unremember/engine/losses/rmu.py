"""Representation misdirection (RMU): steer inner states of the forget set, hold those of the retain set."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from unremember.engine.losses import PlainLoss
from unremember.engine.seams import Context, State
from unremember.errors import require_not_negative
from unremember.registry import losses
from unremember.tasks.protocol import Need, View

_PAPER = {
    "paper": "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning",
    "arxiv": "2403.03218",
}


@losses.register("steer", needs=("answer", "hidden states"), fidelity="code", **_PAPER)
@dataclasses.dataclass(frozen=True)
class Steer(PlainLoss):
    """Steer the answer tokens' states at a layer to a fixed random vector: the mean squared distance to it.

    The direction is drawn once (uniform in [0, 1)^d, normalised) from the run's seed and saved with the
    state.

    Args:
        layer: The block whose output is steered; negative numbers count from the end.
        coefficient: Length of the random vector.
    """

    layer: int = 1
    coefficient: float = 2.0

    def __post_init__(self) -> None:
        require_not_negative(self, "coefficient")

    @property
    def needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        """What is read of the model."""
        return (Need("answer", "hidden", self.layer),)

    def init(self, context: Context) -> State:
        """Draw the direction."""
        generator = torch.Generator().manual_seed(context.seed)
        direction = torch.rand(context.model.config.hidden_size, generator=generator)
        return {"target": self.coefficient * direction / direction.norm()}

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        hidden = view.read(self.needs[0])
        target = state["target"].to(hidden.values)
        distances = (hidden.values - target).square().mean(-1)
        return dataclasses.replace(hidden, values=distances).mean(), state


@losses.register("hold", needs=("answer", "hidden states", "original model"), fidelity="code", **_PAPER)
@dataclasses.dataclass(frozen=True)
class Hold(PlainLoss):
    """Hold the answer tokens' states at a layer to those of the frozen original: the mean squared distance.

    Args:
        layer: The block whose output is held; negative numbers count from the end.
    """

    layer: int = 1

    @property
    def needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        """What is read of the model."""
        return (Need("answer", "hidden", self.layer),)

    @property
    def reference_needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        """What is read of frozen models."""
        return self.needs

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        hidden, original = view.read(self.needs[0]), reference.read(self.needs[0])
        distances = (hidden.values - original.values).square().mean(-1)
        return dataclasses.replace(hidden, values=distances).mean(), state
