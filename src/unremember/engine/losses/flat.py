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
from unremember.errors import ConfigError, did_you_mean
from unremember.registry import losses
from unremember.tasks.protocol import Need, View
from unremember.tasks.ragged import Ragged

Divergence = Literal["kl", "tv", "js", "pearson"]

BOUNDS: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "kl": (lambda p: p, lambda p: (p - 1).exp()),
    "tv": (lambda p: p.tanh() / 2, lambda p: p.tanh() / 2),
    "js": (lambda p: math.log(2) - F.softplus(-p), lambda p: F.softplus(p) - math.log(2)),
    "pearson": (lambda p: p, lambda p: p.square() / 4 + p),
}
"""g and f* ∘ g of each divergence's variational form, as functions of a probability."""

_LEARNED = 0.05
"""Mean probability of the templates below which an epoch has not taught them."""


@losses.register(
    "flat",
    paper="LLM Unlearning via Loss Adjustment with Only Forget Data",
    arxiv="2410.11143",
    needs=("answer", "alternate"),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class FLAT(PlainLoss):
    """Raise the mean probability of a template answer and lower that of the answer: -(g(P_e) - f*(g(P_f))).

    P_f and P_e are an example's mean probability of its answer's and of its alternate's tokens. They are
    means of probabilities, never of log-probabilities, so the gradient on a token fades with its probability:
    the answer does not collapse, and an alternate that the model gives no chance is not learned. Where the
    mean P_e of an epoch stays below 0.05, it warns.

    Args:
        divergence: The f-divergence that gives g and f*: ``kl``, ``tv``, ``js`` or ``pearson``. They differ
            in the weights of the two sides (by 2.7 at most) and in scale, so compare them at matched
            forgetting.
        as_published_code: The padded lengths of the authors' two batches (answers, alternates): both
            probabilities are then one mean over all positions of the batch, padding counted as 0.
    """

    divergence: Divergence = "kl"
    as_published_code: tuple[int, int] | None = None
    needs: ClassVar[tuple[Need, ...]] = (ANSWER, ALTERNATE)

    def __post_init__(self) -> None:
        known = get_args(Divergence)
        if self.divergence not in known:
            raise ConfigError(
                f"unknown divergence {self.divergence!r}: {did_you_mean(self.divergence, known)}"
            )
        if self.as_published_code and min(self.as_published_code) < 2:
            raise ConfigError(
                f"as_published_code={list(self.as_published_code)}: the padded length of a batch, which "
                "counts the token that the first one is predicted from, is 2 or above"
            )

    def init(self, context: Context) -> State:
        """Start the count of an epoch's rows and the sum of their P_e."""
        return {"epoch": len(context.keys[context.roles[0]]), "rows": 0, "alternate": torch.zeros(())}

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        """Return Tensor[B], the loss of each example, and the state."""
        # 1. The mean probability of the answer's tokens, P_f, and of the template's, P_e.
        answer_width, alternate_width = self.as_published_code or (None, None)
        answer = mean_probability(view.read(ANSWER), answer_width)
        alternate = mean_probability(view.read(ALTERNATE), alternate_width)
        # 2. Minus the variational form of the divergence.
        g, conjugate = BOUNDS[self.divergence]
        return conjugate(answer) - g(alternate), with_alternate(state, alternate.detach())


def mean_probability(logprobs: Ragged, width: int | None) -> Tensor:
    """Return Tensor[B], the mean probability of each example's tokens.

    Args:
        width: Where given, the mean is over all B · (width - 1) positions of the padded batch.
    """
    p = dataclasses.replace(logprobs, values=logprobs.values.exp())
    return p.mean() if width is None else p.values.sum().expand(len(p.counts)) / (len(p.counts) * (width - 1))


def with_alternate(state: State, alternate: Tensor) -> State:
    """Add a batch's P_e to the state; warn at the end of an epoch that did not teach the templates."""
    rows, total = state["rows"] + len(alternate), state["alternate"] + alternate.sum()
    if rows < state["epoch"]:
        return {**state, "rows": rows, "alternate": total}
    if (mean := float(total) / rows) < _LEARNED:
        warnings.warn(
            f"template never learned: the alternates have a mean probability of {mean:.1g} after an epoch; "
            'use template="normal" or first train a few refusals',
            stacklevel=2,
        )
    return {**state, "rows": 0, "alternate": torch.zeros(())}
