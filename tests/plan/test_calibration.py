"""The cost of a hardness: the nearest requests, scipy's rank correlation, and the package's calibration."""

from __future__ import annotations

import dataclasses
import math

import pytest
from scipy.stats import spearmanr

from unremember.cli.plan import expected_cost_text
from unremember.plan import calibration
from unremember.plan.calibration import Calibration, expected_cost

COSINES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
COSTS = [0.02, 0.01, 0.05, 0.06, 0.04, 0.30, 0.20, 0.40]


@pytest.fixture
def known() -> Calibration:
    return calibration.fit_calibration("people-20", "digest", COSINES, COSTS)


def test_the_nearest_requests_speak(known: Calibration) -> None:
    """Nearest to 0.75 are 0.3 … 0.8, whose costs are .05 .06 .04 .30 .20 .40: their median is .13."""
    cost = expected_cost(0.75, known)
    assert (cost.cost, cost.low, cost.high, cost.inside) == (pytest.approx(0.13), 0.04, 0.40, True)
    assert expected_cost(0.05, known).cost == pytest.approx(0.045) and not expected_cost(0.05, known).inside
    assert not expected_cost(0.81, known).inside


def test_the_rank_correlation_has_its_interval(known: Calibration) -> None:
    assert (
        known.rho == pytest.approx(spearmanr(COSINES, COSTS).statistic)
        and known.low < known.rho < known.high <= 1
    )
    assert calibration.fit_calibration("a", "b", COSINES, COSINES[::-1]).rho == pytest.approx(-1)
    assert calibration.fit_calibration("people-20", "digest", COSINES, COSTS) == known, (
        "the same draws every time"
    )


def test_the_package_brings_a_calibration_that_is_what_its_pairs_say() -> None:
    known = calibration.load_calibration()
    assert (
        known.requests == 24
        and all(-1 <= c <= 1 for c in known.cosine)
        and all(math.isfinite(c) for c in known.cost)
    )
    assert calibration.fit_calibration(known.arena, known.original, known.cosine, known.cost) == known


@pytest.mark.parametrize(
    ("low", "phrase"), [(0.1, "ranked with ρ = 0.40"), (-0.1, "did not rank beyond chance, ρ = 0.40")]
)
def test_the_plan_says_whether_hardness_ranked_anything(
    known: Calibration, monkeypatch: pytest.MonkeyPatch, low: float, phrase: str
) -> None:
    monkeypatch.setattr(
        "unremember.plan.calibration.load_calibration", lambda: dataclasses.replace(known, rho=0.4, low=low)
    )
    assert phrase in expected_cost_text(expected_cost(0.3, known))
