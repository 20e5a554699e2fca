"""Intervals equal a naive bootstrap, are as wide as the groups say, and are paired across artefacts."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from handmade import loss_records, observations_of

from unremember.audits import bootstrap
from unremember.audits.bootstrap import DRAWS, auc, auc_draws, interval, mean_draws, units
from unremember.audits.measurement import Measurement
from unremember.audits.membership import MembershipLoss
from unremember.audits.probability import Probability
from unremember.data.split import make_split

RNG = np.random.default_rng(5)
GROUPS = [f"author {i % 12}" for i in range(60)]
VALUES = RNG.normal(0, 1, 12)[np.arange(60) % 12] + RNG.normal(0, 0.3, 60)


def naive(groups: list[str], seed: int = 11, draws: int = 4000) -> list[list[int]]:
    """Row numbers of each draw: as many groups as there are, with replacement, each with all its rows."""
    generator, names = np.random.default_rng(seed), sorted(set(groups))
    rows = {name: [i for i, g in enumerate(groups) if g == name] for name in names}
    return [[i for name in generator.choice(names, len(names)) for i in rows[name]] for _ in range(draws)]


def test_the_interval_of_a_mean_equals_a_naive_bootstrap() -> None:
    result = interval(mean_draws(VALUES, GROUPS))
    expected = np.percentile([VALUES[rows].mean() for rows in naive(GROUPS)], [2.5, 97.5])
    assert np.abs(np.array(result) - expected).max() < 0.06 * np.ptp(expected)


def test_the_mean_of_groups_of_unequal_size_and_of_missing_values_equals_a_naive_bootstrap() -> None:
    values, groups = VALUES.copy(), ["big"] * 30 + GROUPS[30:]
    values[[3, 31, 50]] = np.nan
    result = interval(mean_draws(values, groups))
    expected = np.percentile([np.nanmean(values[rows]) for rows in naive(groups)], [2.5, 97.5])
    assert np.abs(np.array(result) - expected).max() < 0.06 * np.ptp(expected)


def test_the_interval_of_an_auc_equals_a_naive_bootstrap() -> None:
    positive, negative, groups = (
        (VALUES + 0.5).round(1),
        VALUES[::-1][:40].round(1),
        [f"other {i % 10}" for i in range(40)],
    )
    result = interval(auc_draws(positive, negative, GROUPS, groups))
    pairs = zip(naive(GROUPS), naive(groups, seed=12))
    expected = np.percentile([auc(positive[rows], negative[holdout]) for rows, holdout in pairs], [2.5, 97.5])
    assert np.abs(np.array(result) - expected).max() < 0.08 * np.ptp(expected)


def test_rows_that_say_the_same_count_once() -> None:
    """Ten authors of 40 equal rows: the interval is that of ten values, far wider than that of 400 rows."""
    author = np.random.default_rng(1).normal(0, 1, 10)
    rows, names = np.repeat(author, 40), [f"a{i // 40}" for i in range(400)]
    assert interval(mean_draws(rows, names)) == pytest.approx(
        interval(mean_draws(author, [f"a{i}" for i in range(10)]))
    )
    wide, narrow = (
        np.ptp(interval(mean_draws(rows, names))),
        np.ptp(interval(mean_draws(rows, [str(i) for i in range(400)]))),
    )
    assert wide / narrow == pytest.approx(math.sqrt(40), rel=0.15)
    assert wide == pytest.approx(2 * 1.96 * author.std() / math.sqrt(10), rel=0.12)


def test_grouped_intervals_of_an_auc_are_wider_too() -> None:
    rng = np.random.default_rng(2)
    members, holdout, names = (
        np.repeat(rng.normal(0, 1, 8), 30),
        rng.normal(0.3, 1, 240),
        [f"a{i // 30}" for i in range(240)],
    )
    rows = [str(i) for i in range(240)]
    grouped, single = (np.ptp(interval(auc_draws(holdout, members, rows, g))) for g in (names, rows))
    assert grouped > 2 * single


def test_a_single_subject_is_resampled_by_row() -> None:
    assert units(["one"] * 4).tolist() == [0, 1, 2, 3] and units(["b", "a", "b"]).tolist() == [1, 0, 1]
    result = interval(mean_draws(VALUES, ["one"] * 60))
    assert result == interval(mean_draws(VALUES, [f"{i:02}" for i in range(60)])) and result[0] < result[1]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Thirty subjects drawn 200 times: the mean of their kind lies inside in 88 to 98 of 100."""
    rng, hits = np.random.default_rng(8), 0
    for _ in range(200):
        values = np.repeat(rng.normal(0, 1, 30), 3) + rng.normal(0, 0.2, 90)
        low, high = interval(mean_draws(values, [str(i // 3) for i in range(90)]))
        hits += low <= 0 <= high
    assert 176 <= hits <= 196


def test_draws_of_two_artefacts_are_paired() -> None:
    """The draws of a sum are the sum of the draws, with missing values and in any number of blocks."""
    rng = np.random.default_rng(3)
    second = rng.normal(0, 5, 60)
    assert mean_draws(VALUES + second, GROUPS) == pytest.approx(
        mean_draws(VALUES, GROUPS) + mean_draws(second, GROUPS)
    )
    shifted = second + 0.01 * rng.normal(0, 1, 60)
    assert np.ptp(interval(mean_draws(second, GROUPS) - mean_draws(shifted, GROUPS))) < 0.02 * np.ptp(
        interval(mean_draws(second, GROUPS))
    )


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mean_draws(VALUES, GROUPS), auc_draws(VALUES, VALUES[:30], GROUPS, GROUPS[:30])
    for size in (1, 777, 2**22):
        monkeypatch.setattr(bootstrap, "_BLOCK", size)
        assert np.allclose(mean_draws(VALUES, GROUPS), before[0]) and len(before[0]) == DRAWS
        assert np.allclose(auc_draws(VALUES, VALUES[:30], GROUPS, GROUPS[:30]), before[1])


def test_memory_does_not_grow_with_draws_times_rows() -> None:
    """20,000 rows: one float64 for each draw and row would be 320 MB."""
    values, groups = np.random.default_rng(0).random(20_000), [str(i // 9) for i in range(20_000)]
    tracemalloc.start()
    mean_draws(values, groups)
    auc_draws(values, values[::-1], groups, groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_auc_draws_skip_what_is_missing_and_rank_what_is_infinite() -> None:
    rows = ["a", "b", "c", "d"]
    full = auc_draws(np.array([1.0, 5, 9, math.inf]), np.array([2.0, 3, 4, 8]), rows, rows)
    assert np.array_equal(full, auc_draws(np.array([1.0, 5, 9, 99]), np.array([2.0, 3, 4, 8]), rows, rows))
    some = auc_draws(np.array([1.0, 5, 9, math.nan]), np.array([math.nan, 3, 4, 8]), rows, rows)
    assert np.isnan(some).sum() < 20 and np.nanmean(some) == pytest.approx(
        auc(np.array([1.0, 5, 9]), np.array([3.0, 4, 8])), abs=0.03
    )


def test_a_measurement_of_rows_of_one_author_is_as_wide_as_its_authors() -> None:
    """Through the audits: the same records, once of five authors, once of rows that are each their own."""
    loss = np.repeat([0.1, 0.5, 1.0, 2.0, 3.0], 20)
    widths = {}
    for name, entity in (
        ("authors", [f"a{i // 20}" for i in range(100)]),
        ("rows", [str(i) for i in range(100)]),
    ):
        rows = [{"question": "?", "answer": "a b c d", "entity": e} for e in entity]
        observations = observations_of(
            make_split({"forget": rows, "holdout": rows}),
            {("forget", "answer"): loss_records(loss), ("holdout", "answer"): loss_records(loss + 0.2)},
        )
        for audit in (Probability(), MembershipLoss()):
            result = audit.measure(observations, [])
            widths[name, result.name] = result.high - result.low
    assert all(
        widths["authors", name] > 3 * widths["rows", name] for name in ("probability", "membership_loss")
    )


def test_a_row_is_strict_json_without_examples() -> None:
    observations = Measurement(
        "x",
        math.nan,
        low=-math.inf,
        high=np.float64(2),
        n=np.int64(3),
        extra={"log10_p": -math.inf, "deep": [{"p": np.float32(0.5)}]},
        controls={"oracle": [math.nan, 1.0], "original": None},
        per_example=VALUES,
        draws=VALUES,
    )
    row = json.loads(json.dumps(observations.row(), allow_nan=False))
    assert not {"per_example", "draws", "axis", "groups"} & set(row)
    assert (row["value"], row["low"], row["high"], row["n"]) == (None, None, 2.0, 3)
    assert row["extra"] == {"log10_p": None, "deep": [{"p": 0.5}]} and row["controls"] == {
        "oracle": [None, 1.0],
        "original": None,
    }
