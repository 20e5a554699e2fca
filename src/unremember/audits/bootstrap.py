"""Bootstrap draws of a figure: whole subjects are drawn, not rows, and the same subjects for every artefact.

Draws depend on the groups and the seed alone, so the draws of one figure of two artefacts are paired: their
difference, draw by draw, is the draw of the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 2000
_BLOCK = 2**17
"""Numbers that exist at once: draws are computed a block at a time."""


def units(groups: Sequence[str]) -> np.ndarray:
    """Return int64[n], each example's unit of resampling: its group, or itself where all are of one group.

    From a single subject nothing follows for other subjects; its rows then bound what the figure says of
    itself.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index if len(names) > 1 else np.arange(len(index))


def bootstrap(figure: Callable[..., np.ndarray], *sides: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return float64[DRAWS], a figure of each draw; NaN where a draw has none.

    Memory does not grow with DRAWS × n.

    Args:
        figure: Takes for each side float64[B, n], how often each example enters each of B draws; returns
            float64[B].
        sides: For each side int64[n], the unit of resampling of each example. Each side is drawn on its own.
    """
    generators = [np.random.default_rng([seed, side]) for side in range(len(sides))]
    size = max(1, _BLOCK // max(map(len, sides)))
    blocks = []
    for start in range(0, DRAWS, size):
        rows = min(size, DRAWS - start)
        weights = [
            draw_counts(generator, int(index.max()) + 1, rows).take(index, 1)
            for generator, index in zip(generators, sides)
        ]
        with np.errstate(invalid="ignore"):
            blocks.append(figure(*weights))
    return np.concatenate(blocks)


def draw_counts(generator: np.random.Generator, n: int, rows: int) -> np.ndarray:
    """Return float64[rows, n]: how often each of n units is among n that are drawn with replacement."""
    drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of draws, without those that are NaN."""
    low, high = np.percentile(draws[~np.isnan(draws)], [2.5, 97.5])
    return float(low), float(high)


def mean_draws(values: np.ndarray, groups: Sequence[str], seed: int = 0) -> np.ndarray:
    """Return float64[DRAWS], draws of the mean of float[n] ``values``, without those that are not finite."""
    index, finite = units(groups), np.isfinite(values)
    sums = np.bincount(index, np.where(finite, values, 0.0))
    sizes = np.bincount(index, finite)
    return bootstrap(lambda weights: weights @ sums / (weights @ sizes), np.arange(len(sums)), seed=seed)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return P(positive > negative) + ½ P(equal), the area under the ROC curve."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    upto = np.searchsorted(ordered, positive, "right")
    return float((below + upto).mean() / (2 * len(negative)))


def auc_draws(
    positive: np.ndarray, negative: np.ndarray, positive_groups: Sequence[str], negative_groups: Sequence[str]
) -> np.ndarray:
    """Return float64[DRAWS], draws of the AUC, both sides resampled. NaN is skipped, infinity ranks last."""
    above, below = ~np.isnan(positive), ~np.isnan(negative)
    order = np.flatnonzero(below)[np.argsort(negative[below])]
    ranks = [np.searchsorted(negative[order], positive[above], side) for side in ("left", "right")]

    def area(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left, right = left.compress(above, 1), right.take(order, 1)
        weight = np.pad(np.cumsum(right, 1), ((0, 0), (1, 0)))
        wins = weight.take(ranks[0], 1) + weight.take(ranks[1], 1)
        return (left * wins).sum(1) / (2 * left.sum(1) * right.sum(1))

    return bootstrap(area, units(positive_groups), units(negative_groups))
