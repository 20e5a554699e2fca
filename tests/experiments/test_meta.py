"""The formulas of meta-evaluation have the values computed by hand, and say why where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unremember.experiments import meta
from unremember.experiments.meta import mean_of

UNLEARNED, RETRAINED, ROUNDED = (0.12, 0.52), (0.1, 0.3), (0.10, 0.16)


def test_faithfulness_is_the_share_of_pairs_that_stand_right() -> None:
    value, low, high = meta.faithfulness((0.8, 0.6, 0.4), (0.5, 0.3, 0.2))
    assert value == pytest.approx(8 / 9, abs=1e-12) and low < value <= high == 1
    assert meta.faithfulness((0.5, 0.3, 0.2), (0.8, 0.6, 0.4))[0] == pytest.approx(1 / 9, abs=1e-12), (
        "a metric that is turned the wrong way"
    )
    assert meta.faithfulness((1.0, 1.0), (1.0, 1.0)) == (0.5, 0.5, 0.5) and meta.faithfulness(
        (2, 3), (0, 1)
    ) == (1, 1, 1)


def test_robustness_has_the_values_computed_by_hand() -> None:
    r, q = meta.relearning(UNLEARNED, RETRAINED).value, meta.quantisation(ROUNDED).value
    assert r == pytest.approx(0.5, abs=1e-12) and q == pytest.approx(0.625, abs=1e-12)
    assert mean_of(r, q) == pytest.approx(5 / 9, abs=1e-12) and round(mean_of(r, q) or 0, 6) == 0.555556
    r, q = meta.relearning_symmetric(UNLEARNED, RETRAINED).value, meta.quantisation_symmetric(ROUNDED).value
    assert (
        r == pytest.approx(2 / 3, abs=1e-12)
        and q == pytest.approx(10 / 13, abs=1e-12)
        and round(q or 0, 6) == 0.769231
    )
    assert mean_of(r, q) == pytest.approx(5 / 7, abs=1e-12) and round(mean_of(r, q) or 0, 6) == 0.714286
    assert mean_of(8 / 9, 5 / 9) == pytest.approx(2 * 8 / 9 * 5 / 9 / (13 / 9), abs=1e-12)


def test_a_ratio_ends_at_0_and_1() -> None:
    """The unlearned model gains less; the two go opposite ways; the figure falls; it changes its sign."""
    assert (
        meta.relearning((0.1, 0.2), (0.1, 0.5)).value == 1
        and meta.relearning((0.1, 0.3), (0.3, 0.1)).value == 0
    )
    assert meta.quantisation((0.16, 0.10)).value == 1 and meta.quantisation((-0.1, 0.2)).value == 0
    assert meta.relearning_symmetric((0.1, 0.2), (0.1, 0.5)).value == pytest.approx(0.4)
    assert meta.relearning_symmetric((0.1, 0.3), (0.3, 0.1)).value == pytest.approx(0, abs=1e-12)
    assert meta.quantisation_symmetric((0.16, 0.10)) == meta.quantisation_symmetric((0.10, 0.16))


def test_a_denominator_of_0_is_no_number_but_a_reason() -> None:
    still = (0.3, 0.3)
    assert meta.relearning(still, RETRAINED) == (None, meta.UNMOVED) and meta.relearning_symmetric(
        still, still
    ) == (None, meta.STILL)
    assert meta.quantisation((0.1, 0.0)) == (None, meta.NOTHING) and meta.quantisation_symmetric(
        (0.0, 0.0)
    ) == (None, meta.SILENT)
    assert meta.relearning(UNLEARNED, (math.nan, 0.3)) == (None, meta.NO_FIGURE) and meta.quantisation(
        (math.inf, 0.1)
    ) == (None, meta.NO_FIGURE)
    assert mean_of(0.5, None) is None and mean_of(0.5, 0.0) == 0


def test_the_threshold_parts_the_pools_best() -> None:
    assert meta.threshold((0.8, 0.6, 0.9), (0.2, 0.3)) == pytest.approx(0.45)
    assert meta.threshold((0.8, 0.6, 0.4), (0.5, 0.3, 0.2)) == pytest.approx(0.35), (
        "5 of 6 right; so at 0.55, and the lowest is taken"
    )
    assert meta.threshold((1.0, 1.0), (1.0,)) == 1.0


def test_pools_dealt_at_random_are_around_a_half() -> None:
    low, high = meta.chance(np.arange(6.0), np.arange(6.0) + 10)
    assert 0.1 < low < 0.25 and 0.75 < high < 0.9
    exact = math.sqrt(13 / 12 / 36)
    wide = (high - low) / 2
    assert wide == pytest.approx(1.96 * exact, rel=0.15), "the normal approximation of the rank sum"
    assert meta.chance((1, 1), (1, 1)) == (0.5, 0.5)
