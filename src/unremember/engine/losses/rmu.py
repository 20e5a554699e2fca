"""Representation misdirection (RMU): steer inner states of the forget set, hold those of the retain set."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from unremember.engine.losses import PlainLoss
from unremember.engine.seams import Context, State
from unremember.registry import losses
from unremember.tasks.protocol import Need, View

PAPER = {
    "paper": "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning",
    "arxiv": "2403.03218",
}


@losses.register("steer", needs=("answer", "hidden states"), fidelity="code", **PAPER)
@dataclasses.dataclass(frozen=True)
class Steer(PlainLoss):
    """Mean squared distance of the answer tokens' states at ``layer`` to a fixed random vector of length ``coefficient``.

    The direction is drawn once (uniform in [0, 1)^d, normalised) from the run's seed and saved with the state.
    """

    layer: int = 1
    coefficient: float = 2.0

    @property
    def needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        return (Need("answer", "hidden", self.layer),)

    def init(self, context: Context) -> State:
        generator = torch.Generator().manual_seed(context.seed)
        direction = torch.rand(context.model.config.hidden_size, generator=generator)
        return {"target": self.coefficient * direction / direction.norm()}

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        hidden = view.read(self.needs[0])
        target = state["target"].to(hidden.values)
        return dataclasses.replace(hidden, values=(hidden.values - target).square().mean(-1)).mean(), state


@losses.register("hold", needs=("answer", "hidden states", "original model"), fidelity="code", **PAPER)
@dataclasses.dataclass(frozen=True)
class Hold(PlainLoss):
    """Mean squared distance of the answer tokens' states at ``layer`` to those of the frozen original."""

    layer: int = 1

    @property
    def needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        return (Need("answer", "hidden", self.layer),)

    @property
    def reference_needs(self) -> tuple[Need, ...]:  # type: ignore[override]
        return self.needs

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        hidden, original = view.read(self.needs[0]), reference.read(self.needs[0])
        return dataclasses.replace(
            hidden, values=(hidden.values - original.values).square().mean(-1)
        ).mean(), state
