"""Bootstrap draws of a figure: whole subjects are drawn, not rows, and the same subjects for every artefact.

Draws depend on the groups and the seed alone, so the draws of one figure of two artefacts are paired: their
difference, draw by draw, is the draw of the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 2000
BLOCK = 2**17
"""Numbers that exist at once: draws are made a block at a time."""


def units(groups: Sequence[str]) -> np.ndarray:
    """int64[n]: which unit of resampling each example belongs to: its group, or itself where all are of one group.

    Of a single subject nothing can be said about others; its rows then bound what is said about itself.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index if len(names) > 1 else np.arange(len(index))


def bootstrap(figure: Callable[..., np.ndarray], *sides: np.ndarray, seed: int = 0) -> np.ndarray:
    """float64[DRAWS]: ``figure`` of each draw, NaN where a draw has none. Memory does not grow with DRAWS × n.

    ``sides`` int64[n] are units of resampling, each side drawn on its own. ``figure`` gets, for each side,
    float64[B, n], how often each example enters each of B draws, and returns float64[B].
    """
    generators = [np.random.default_rng([seed, side]) for side in range(len(sides))]
    size = max(1, BLOCK // max(map(len, sides)))
    made = []
    for start in range(0, DRAWS, size):
        rows = min(size, DRAWS - start)
        weights = [
            counts(generator, int(index.max()) + 1, rows).take(index, 1)
            for generator, index in zip(generators, sides)
        ]
        with np.errstate(invalid="ignore"):
            made.append(figure(*weights))
    return np.concatenate(made)


def counts(generator: np.random.Generator, n: int, rows: int) -> np.ndarray:
    """float64[rows, n]: how often each of n units is among n that are drawn with replacement."""
    drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of draws; draws that are not a number are left out."""
    low, high = np.percentile(draws[~np.isnan(draws)], [2.5, 97.5])
    return float(low), float(high)


def mean_draws(values: np.ndarray, groups: Sequence[str], seed: int = 0) -> np.ndarray:
    """float64[DRAWS]: the mean of float[n] ``values``; entries that are not finite are skipped."""
    index, there = units(groups), np.isfinite(values)
    sums = np.bincount(index, np.where(there, values, 0.0))
    sizes = np.bincount(index, there)
    return bootstrap(lambda weights: weights @ sums / (weights @ sizes), np.arange(len(sums)), seed=seed)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """P(positive > negative) + ½ P(equal)."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    upto = np.searchsorted(ordered, positive, "right")
    return float((below + upto).mean() / (2 * len(negative)))


def auc_draws(
    positive: np.ndarray, negative: np.ndarray, positive_groups: Sequence[str], negative_groups: Sequence[str]
) -> np.ndarray:
    """float64[DRAWS]: the AUC with both sides resampled; entries that are NaN are skipped, infinite ones rank last."""
    above, below = ~np.isnan(positive), ~np.isnan(negative)
    order = np.flatnonzero(below)[np.argsort(negative[below])]
    places = [np.searchsorted(negative[order], positive[above], side) for side in ("left", "right")]

    def area(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left, right = left.compress(above, 1), right.take(order, 1)
        weight = np.pad(np.cumsum(right, 1), ((0, 0), (1, 0)))
        wins = weight.take(places[0], 1) + weight.take(places[1], 1)
        return (left * wins).sum(1) / (2 * left.sum(1) * right.sum(1))

    return bootstrap(area, units(positive_groups), units(negative_groups))
