"""The worth of a metric: does it tell who knows from who does not, and does it hold under attack?

After OpenUnlearning (arXiv 2506.12618). Every figure m is oriented: higher = more knowledge of the forget
set. A ratio is clipped to [0, 1], and 1 is best. Where its denominator is 0 there is no ratio, and the reason
stands in its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unremember.audits.bootstrap import DRAWS, auc, auc_draws, interval
from unremember.audits.model_utility import harmonic

UNMOVED = "the attack does not move the unlearned model"
STILL = "the attack moves neither model"
NOTHING = "nothing is known after rounding"
SILENT = "nothing is known before or after rounding"
NO_FIGURE = "the metric has no finite value"

BeforeAfter = tuple[float, float]
"""A figure before an attack and after it."""


class Ratio(NamedTuple):
    """A number in [0, 1], or None and why."""

    value: float | None
    reason: str = ""


def ratio(above: float, below: float, reason: str) -> Ratio:
    """Return ``above / below`` clipped to [0, 1]; no value but the reason where ``below`` is 0."""
    if not (math.isfinite(above) and math.isfinite(below)):
        return Ratio(None, NO_FIGURE)
    return Ratio(min(max(above / below, 0.0), 1.0)) if below else Ratio(None, reason)


def relearning(unlearned: BeforeAfter, retrained: BeforeAfter) -> Ratio:
    """Return R: what the attack teaches a retrained model, over what it recovers from the unlearned one."""
    return ratio(retrained[1] - retrained[0], unlearned[1] - unlearned[0], UNMOVED)


def relearning_symmetric(unlearned: BeforeAfter, retrained: BeforeAfter) -> Ratio:
    """Return 1 - |Δu - Δr| / (|Δu| + |Δr|), Δ being the changes of the two: a fall counts as a rise does."""
    u, r = unlearned[1] - unlearned[0], retrained[1] - retrained[0]
    return ratio(abs(u) + abs(r) - abs(u - r), abs(u) + abs(r), STILL)


def quantisation(unlearned: BeforeAfter) -> Ratio:
    """Return Q: before over after, so that a recovery is penalised and a fall is not."""
    return ratio(unlearned[0], unlearned[1], NOTHING)


def quantisation_symmetric(unlearned: BeforeAfter) -> Ratio:
    """Return 1 - |Δ| / (|before| + |after|): a fall counts as a recovery does."""
    before, after = unlearned
    return ratio(abs(before) + abs(after) - abs(after - before), abs(before) + abs(after), SILENT)


def mean_of(*parts: float | None) -> float | None:
    """Return the harmonic mean; None where a part is missing.

    Of R and Q it is the robustness, of faithfulness and robustness the overall figure.
    """
    return None if None in parts else float(harmonic(np.array(parts, dtype=np.float64)))


def faithfulness(knowing: Sequence[float], ignorant: Sequence[float]) -> tuple[float, float, float]:
    """Return (AUC, low, high): the chance that a model with the knowledge stands above one without it.

    The 95 % interval draws models with replacement; where the pools do not overlap it has no width.
    """
    p, n = np.array(knowing, dtype=np.float64), np.array(ignorant, dtype=np.float64)
    names = [[str(i) for i in range(len(pool))] for pool in (p, n)]
    return auc(p, n), *interval(auc_draws(p, n, *names))


def chance(knowing: Sequence[float], ignorant: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the AUC where the models are dealt to the pools at random.

    That is what a metric without any faithfulness gives.
    """
    rng, both = np.random.default_rng(seed), np.concatenate([knowing, ignorant])
    dealt = [rng.permutation(both) for _ in range(DRAWS)]
    return interval(np.array([auc(deal[: len(knowing)], deal[len(knowing) :]) for deal in dealt]))


def threshold(knowing: Sequence[float], ignorant: Sequence[float]) -> float:
    """Return the value that parts the pools best: up to it a model passes for one that does not know.

    It maximises the mean share of each pool that is on its side, half-way between two figures (the lowest of
    several).
    """
    p, n = np.array(knowing, dtype=np.float64), np.array(ignorant, dtype=np.float64)
    values = np.unique(np.concatenate([p, n]))
    cuts = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2, values[-1:]])
    right = [(p > cut).mean() + (n <= cut).mean() for cut in cuts]
    return float(cuts[int(np.argmax(right))])
