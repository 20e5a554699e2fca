"""What requests of a known hardness cost: measured on the generated world, by forgetting them."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from importlib import resources

import numpy as np
from scipy.stats import spearmanr

_NEAREST = 6
"""Requests of similar hardness from which the cost of a new one is expected."""
_DRAWS = 2000
"""Bootstrap draws of the rank correlation."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Requests on one original, with their hardness before and their cost after.

    Args:
        arena: The data on which they were made.
        original: The digest of the original.
        cosine: The hardness of each request.
        cost: The cost of each: the fall of the retain answers' probability.
        rho: Spearman's rank correlation of the two.
        low: The lower end of its 95 % bootstrap interval.
        high: The upper end.
    """

    arena: str
    original: str
    cosine: tuple[float, ...]
    cost: tuple[float, ...]
    rho: float
    low: float
    high: float

    @property
    def requests(self) -> int:
        """The number of requests."""
        return len(self.cosine)


@dataclasses.dataclass(frozen=True)
class ExpectedCost:
    """The cost of a new request, from the requests nearest to it in hardness.

    Args:
        cost: Their median cost.
        low: Their least cost.
        high: Their greatest cost.
        inside: Whether the new request is no harder and no easier than all that were measured.
    """

    cost: float
    low: float
    high: float
    inside: bool


def fit_calibration(arena: str, original: str, cosine: Sequence[float], cost: Sequence[float]) -> Calibration:
    """Return the calibration of measured requests, with its rank correlation and interval (fixed seed)."""
    rng, pairs = np.random.default_rng(0), np.array([cosine, cost])
    draws = [
        spearmanr(*pairs[:, rng.integers(len(cosine), size=len(cosine))]).statistic for _ in range(_DRAWS)
    ]
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    rho = spearmanr(*pairs).statistic
    return Calibration(arena, original, tuple(cosine), tuple(cost), float(rho), float(low), float(high))


@functools.cache
def load_calibration() -> Calibration:
    """Load the calibration that comes with the package (made by ``unremember experiment hardness``)."""
    file = resources.files("unremember.plan").joinpath("calibration.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    return Calibration(**{**record, "cosine": tuple(record["cosine"]), "cost": tuple(record["cost"])})


def expected_cost(cosine: float, calibration: Calibration) -> ExpectedCost:
    """Return what requests of this hardness cost."""
    cosines, costs = np.array(calibration.cosine), np.array(calibration.cost)
    nearest = costs[np.argsort(abs(cosines - cosine), kind="stable")[:_NEAREST]]
    return ExpectedCost(
        float(np.median(nearest)),
        float(nearest.min()),
        float(nearest.max()),
        bool(cosines.min() <= cosine <= cosines.max()),
    )
