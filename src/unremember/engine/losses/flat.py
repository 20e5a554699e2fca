"""FLAT: raise a template answer and lower the one to forget, weighed by an f-divergence; forget data only."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from unremember.engine.losses import ALTERNATE, ANSWER, PlainLoss
from unremember.engine.seams import Context, State
from unremember.errors import ConfigError, nearest
from unremember.registry import losses
from unremember.tasks.protocol import Need, View
from unremember.tasks.ragged import Ragged

Divergence = Literal["kl", "tv", "js", "pearson"]
LEARNED = 0.05

BOUNDS: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "kl": (lambda v: v, lambda v: (v - 1).exp()),
    "tv": (lambda v: v.tanh() / 2, lambda v: v.tanh() / 2),
    "js": (lambda v: math.log(2) - F.softplus(-v), lambda v: F.softplus(v) - math.log(2)),
    "pearson": (lambda v: v, lambda v: v.square() / 4 + v),
}
"""g and f* ∘ g of each divergence's variational form, as functions of a probability."""


@losses.register(
    "flat",
    paper="LLM Unlearning via Loss Adjustment with Only Forget Data",
    arxiv="2410.11143",
    needs=("answer", "alternate"),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class FLAT(PlainLoss):
    """-(g(P_e) - f*(g(P_f))): P_f and P_e are an example's mean probability of its answer's and its alternate's tokens.

    ``divergence`` gives g and f*: ``kl``, ``tv``, ``js`` or ``pearson``. They differ in the weights of the two sides (by
    2.7 at most) and in scale, so compare them at matched forgetting. The probabilities are means of probabilities, never
    of log-probabilities, so the pull on a token fades with its probability: on the answer there is no collapse, on an
    alternate that the model gives no chance nothing is learned. Where the mean P_e of an epoch stays below 0.05,
    it warns.

    ``as_published_code`` gives the padded lengths of the authors' two batches (answers, alternates): both probabilities
    are then one mean over all positions of the batch, padding counted as 0.
    """

    divergence: Divergence = "kl"
    as_published_code: tuple[int, int] | None = None
    needs: ClassVar[tuple[Need, ...]] = (ANSWER, ALTERNATE)

    def __post_init__(self) -> None:
        if self.divergence not in BOUNDS:
            raise ConfigError(
                f"unknown divergence {self.divergence!r}: {nearest(self.divergence, get_args(Divergence))}"
            )

    def init(self, context: Context) -> State:
        return {"epoch": len(context.keys[context.roles[0]]), "rows": 0, "alternate": torch.zeros(())}

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        widths = self.as_published_code or (None, None)
        answer, alternate = (probability(view.read(need), width) for need, width in zip(self.needs, widths))
        g, conjugate = BOUNDS[self.divergence]
        return conjugate(answer) - g(alternate), watched(state, alternate.detach())


def probability(logprobs: Ragged, width: int | None) -> Tensor:
    """Tensor[B]: mean probability of each example's tokens, or over all B · (width - 1) positions of the padded batch."""
    p = dataclasses.replace(logprobs, values=logprobs.values.exp())
    return p.mean() if width is None else p.values.sum().expand(len(p.counts)) / (len(p.counts) * (width - 1))


def watched(state: State, alternate: Tensor) -> State:
    """The state with a batch's P_e added up; warns at the end of an epoch in which the alternates got no chance."""
    rows, total = state["rows"] + len(alternate), state["alternate"] + alternate.sum()
    if rows < state["epoch"]:
        return {**state, "rows": rows, "alternate": total}
    if (mean := float(total) / rows) < LEARNED:
        warnings.warn(
            f"template never learned: the alternates have a mean probability of {mean:.1g} after an epoch; "
            'use template="normal" or first train a few refusals',
            stacklevel=2,
        )
    return {**state, "rows": 0, "alternate": torch.zeros(())}
