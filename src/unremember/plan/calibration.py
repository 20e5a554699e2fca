"""What a hardness has cost before: requests on the generated world that were judged by ``plan`` and then really forgotten."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from importlib import resources

import numpy as np
from scipy.stats import spearmanr

NEAREST = 6
"""Requests of like hardness that stand for a new one."""
DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Cosines (hardness) and costs of the requests on one original, and how well the first rank the second (Spearman, 95 % bootstrap)."""

    arena: str
    original: str
    cosine: tuple[float, ...]
    cost: tuple[float, ...]
    rho: float
    low: float
    high: float

    @property
    def requests(self) -> int:
        return len(self.cosine)


@dataclasses.dataclass(frozen=True)
class Expected:
    """The median cost of the requests nearest in hardness, and their least and greatest; ``inside``: not beyond all of them."""

    cost: float
    low: float
    high: float
    inside: bool


def fit(arena: str, original: str, cosine: Sequence[float], cost: Sequence[float]) -> Calibration:
    """Rank correlation of cosines and costs with its bootstrap interval (fixed seed)."""
    rng, pairs = np.random.default_rng(0), np.array([cosine, cost])
    draws = [
        spearmanr(*pairs[:, rng.integers(len(cosine), size=len(cosine))]).statistic for _ in range(DRAWS)
    ]
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Calibration(
        arena,
        original,
        tuple(cosine),
        tuple(cost),
        float(spearmanr(*pairs).statistic),
        float(low),
        float(high),
    )


@functools.cache
def load() -> Calibration:
    """The calibration that comes with the package (``unremember bench hardness`` makes it)."""
    found = json.loads(
        resources.files("unremember.plan").joinpath("calibration.json").read_text(encoding="utf-8")
    )
    return Calibration(**{**found, "cosine": tuple(found["cosine"]), "cost": tuple(found["cost"])})


def expected(cosine: float, known: Calibration) -> Expected:
    """What a request of this hardness cost on the generated world."""
    cosines, costs = np.array(known.cosine), np.array(known.cost)
    near = costs[np.argsort(abs(cosines - cosine), kind="stable")[:NEAREST]]
    return Expected(
        float(np.median(near)),
        float(near.min()),
        float(near.max()),
        bool(cosines.min() <= cosine <= cosines.max()),
    )
