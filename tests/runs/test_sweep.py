"""Axes become points, a search repeats itself, and front and recommendation are those found by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from unremember.data.split import Split, make_split
from unremember.errors import ConfigError
from unremember.models.presets import small_llama
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.runs.sweep import result
from unremember.runs.sweep.axes import (
    Range,
    axis,
    corner_points,
    crossed_points,
    point_folder,
    point_title,
    search,
)
from unremember.runs.sweep.controls import SweepControls, quality, sweep_requests
from unremember.runs.sweep.result import SweepResult, pareto_front, recommended_point
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask


@pytest.mark.parametrize(
    ("given", "wanted", "log"),
    [
        ("1e-5..1e-3", Range(1e-5, 1e-3), True),
        ("0.05..0.5", Range(0.05, 0.5), True),
        ("0.1..0.5", Range(0.1, 0.5), False),
        ("2..8", Range(2, 8), False),
        ("1..100", Range(1, 100), True),
        ("0..1.0", Range(0, 1.0), False),
        ("-1..-0.5", Range(-1, -0.5), False),
    ],
)
def test_a_range_is_logarithmic_where_its_ends_are_ten_fold_apart(
    given: str, wanted: Range, log: bool
) -> None:
    made = axis("x", given)
    assert made == wanted and made.log is log
    assert (type(made.low), type(made.high)) == (type(wanted.low), type(wanted.high)), (
        "a whole number stays one"
    )


def test_a_list_is_taken_as_it_is() -> None:
    assert axis("layers", [[1, 2], [3]]) == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (1e-4, "give a list"),
        ("1e-4,1e-3", "give a list"),
        ([], "give a list"),
        ("a..b", "give a list"),
        ({"x": 1}, "give a list"),
        ("3..1", "ends before it begins"),
        ("2..2", "ends before it begins"),
    ],
    ids=str,
)
def test_what_is_no_axis_is_named(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"sweep\.lr.*{message}"):
        axis("lr", given)


def test_the_cross_product_keeps_the_order() -> None:
    assert crossed_points({"lr": [1, 2], "method": ["a", {"name": "b"}]}) == [
        {"lr": 1, "method": "a"},
        {"lr": 1, "method": {"name": "b"}},
        {"lr": 2, "method": "a"},
        {"lr": 2, "method": {"name": "b"}},
    ]
    with pytest.raises(ConfigError, match=r"sweep\.lr is a range: give a list of points, or --search N"):
        crossed_points({"method": ["a"], "lr": Range(0.0, 1.0)})
    assert corner_points({"lr": Range(0.0, 1.0), "k": [3]}) == [{"lr": 0.0, "k": 3}, {"lr": 1.0, "k": 3}]


def cell(name: str, quality: float | None, utility: float | None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "quality": quality,
        "utility": utility,
        "level": 0.1,
        "steps": 4,
        "note": "",
        "tree": {"lr": 1.0},
        "figures": {},
        **more,
    }


CELLS = [
    cell("forgetful", -0.5, 0.2),
    cell("good", -1.0, 0.8),
    cell("as good in one", -1.0, 0.7),
    cell("useful", -9.0, 0.95),
    cell("worse", -2.0, 0.8),
    cell("beaten", -5.0, 0.5),
    cell("collapsed", None, None, note="collapsed: inf"),
    cell("no truth ratio", None, 0.99),
]


def test_the_front_by_hand() -> None:
    assert [c["name"] for c in pareto_front(CELLS)] == ["forgetful", "good", "useful"]
    twins = [cell("a", -1.0, 0.5), cell("b", -1.0, 0.5)]
    assert pareto_front(twins) == twins, "equals do not beat each other"
    assert pareto_front(CELLS[-2:]) == []


@pytest.mark.parametrize(
    ("least", "wanted"),
    [(0.0, "forgetful"), (0.2, "forgetful"), (0.21, "good"), (0.8, "good"), (0.81, "useful"), (0.96, None)],
)
def test_the_best_quality_above_the_floor_is_recommended(least: float, wanted: str | None) -> None:
    for order in itertools.islice(itertools.permutations(CELLS), 0, 40320, 997):
        found = recommended_point(order, least)
        assert (found["name"] if found else None) == wanted


def test_quality_is_log_p_or_the_distance_to_the_oracle() -> None:
    assert quality({"name": "forget_quality", "extra": {"log10_p": -3.5}, "position": 0.2}) == -3.5
    assert (
        quality({"name": "probability", "position": 0.25})
        == -0.25
        == quality({"name": "probability", "position": -0.25})
    )
    assert quality({"name": "probability", "position": None}) is None and quality({}) is None
    assert quality({"name": "forget_quality", "extra": {}}) is None


ROWS = {
    "forget": [{"question": f"Who is {i}?", "answer": "the long river"} for i in range(4)],
    "retain": [{"question": f"Where is {i}?", "answer": "near the harbour"} for i in range(6)],
}


def artefact(tokenizer: Any, seed: int) -> Artefact:
    """A fresh model of width 16."""
    model = small_llama(len(tokenizer), hidden=16, layers=1, heads=2, context=64, seed=seed)
    return Artefact(model, LanguageTask.of(model, tokenizer))


def controls(split: Split, tokenizer: Any) -> SweepControls:
    """Two fresh models as original and oracle: their positions are numbers like any others."""
    original, oracle = (
        Store().observe(artefact(tokenizer, seed), split, sweep_requests(split), quiet=True)
        for seed in (0, 1)
    )
    return SweepControls(split, original, (oracle,))


def odds(seen: Observations, role: str) -> float:
    return float(np.exp(-seen[TokenScores(role)].loss).mean())


def test_data_of_answers_alone_are_judged_by_their_probabilities(tokenizer: Any) -> None:
    """By hand: position = (model − oracle) / (original − oracle); matched forgetting is at a tenth."""
    split = make_split(ROWS)
    made = controls(split, tokenizer)
    assert made.judges == ("probability", "probability retain")
    seen = Store().observe(artefact(tokenizer, 2), split, sweep_requests(split), quiet=True)
    before, retrained, mine = (odds(one, "forget") for one in (made.original, made.oracles[0], seen))
    cell = made.cell(made.figures(made.measure(seen)))
    assert cell["quality"] == pytest.approx(-abs((mine - retrained) / (before - retrained)))
    assert (cell["level"], cell["utility"]) == (pytest.approx(mine), pytest.approx(odds(seen, "retain")))
    assert made.cell({})["note"] == "" == cell["note"], "what has a quality needs no excuse"
    assert made.cell(made.ends[0])["note"].startswith("these are the original's weights")
    assert made.target == pytest.approx(retrained + 0.1 * (before - retrained))


def test_a_split_that_names_its_audits_is_judged_by_them(tokenizer: Any) -> None:
    made = controls(make_split(ROWS, audits=["extraction_strength"]), tokenizer)
    assert made.judges == ("extraction_strength", "probability retain")
    with pytest.raises(ConfigError, match="leave out --matched"):
        _ = made.target
    with pytest.raises(ConfigError, match="no measure of forgetting"):
        _ = controls(make_split({"retain": ROWS["retain"]}), tokenizer).judges


def measured(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The more k and the lower the rate, the better; a high rate costs utility, and from 0.5 on the model."""
    return [
        {
            "quality": None if p["lr"] > 0.5 else -10 * p["lr"] - 10 / p["k"] - (p["kind"] == "b"),
            "utility": 1 - p["lr"],
            **p,
        }
        for p in points
    ]


AXES = {"lr": Range(1e-3, 1.0), "k": Range(1, 20), "kind": ["a", "b"]}


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_search_stays_on_its_axes_and_asks_for_the_same_again(at_once: int) -> None:
    batches: list[int] = []

    def run(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        batches.append(len(points))
        return measured(points)

    found = search(AXES, 10, 3, 0.9, at_once, run)
    assert batches == [at_once] * (10 // at_once) + [10 % at_once] * (10 % at_once > 0)
    assert all(
        1e-3 <= c["lr"] <= 1
        and c["k"] in range(1, 21)
        and isinstance(c["k"], int)
        and c["kind"] in ("a", "b")
        for c in found
    )
    assert search(AXES, 10, 3, 0.9, at_once, measured) == found != search(AXES, 10, 4, 0.9, at_once, measured)
    assert search(AXES, 6, 3, 0.9, 1, measured) == search(AXES, 8, 3, 0.9, 1, measured)[:6], (
        "a longer search begins with the shorter"
    )


def test_a_search_goes_where_the_utility_is_kept() -> None:
    """The quality alone rises with the rate; the floor at 0.9 forbids rates above 0.1."""

    def run(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"quality": 10 * p["lr"], "utility": 1 - p["lr"]} for p in points]

    free, bound = (search({"lr": Range(0.0, 1.0)}, 40, 0, least, 1, run)[20:] for least in (0.0, 0.9))
    kept = lambda cells: sum(c["utility"] >= 0.9 for c in cells)  # noqa: E731
    assert kept(free) == 0 and kept(bound) >= 4, (
        "8 of 20 were measured; a search that knows no floor has none"
    )


def test_a_point_has_a_folder_one_can_read(tmp_path: Path) -> None:
    values = {"method": {"name": "rmu", "layer": 2}, "lr": 1 / 3000, "selection.rank": 8}
    assert point_title(values) == "method=rmu(layer=2) lr=0.0003333 selection.rank=8"
    assert (
        point_folder(tmp_path, values, "0123456789").name
        == "method=rmu_layer=2_lr=0.0003333_selection.rank=8-01234567"
    )


@pytest.fixture
def found() -> SweepResult:
    useful = {"model_utility": {"name": "model_utility", "value": 0.8, "low": 0.75, "high": 0.85}}
    points = [
        cell("one", -1.0, 0.8, tree={"model": "m", "lr": 1e-4}, figures=useful),
        cell("two", -2.0, 0.9),
        cell("three", -4.0, 0.7),
        cell("four", None, None, note="collapsed: a|b", steps=0),
    ]
    controls = [cell("original", -20.0, 0.85, steps=0), cell("oracle", 0.0, 0.9, steps=0)]
    return SweepResult("Sweep", points, controls, ("forget_quality", "model_utility"), 0.9, 0.765, 0.25)


def test_a_page_says_what_is_recommended(found: SweepResult, tmp_path: Path) -> None:
    result.save_sweep(found, tmp_path)
    page = (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert (
        "**Recommended: one: forget quality (log₁₀ p) -1.00, model utility 0.800 (at least 0.765 is "
        "required).**"
        in page
        and "0.250 or less" in page
    )
    rows = [
        [c.strip() for c in row.strip("|").split("|")] for row in page.splitlines() if row.startswith("|")
    ][2:]
    assert [row[:5] for row in rows] == [
        ["1", "★", "one", "-1.00", "0.800 (0.75–0.85)"],
        ["2", "●", "two", "-2.00", "0.900"],
        ["3", "", "three", "-4.00", "0.700"],
        ["4", "", "four (collapsed: a&#124;b)", "–", "–"],
        ["", "", "original", "-20.00", "0.850"],
        ["", "", "oracle", "0.00", "0.900"],
    ]
    placed = {"rouge": {"name": "rouge", "position_low": -0.1, "position_high": 0.3}}
    by_rouge = SweepResult(
        "", [cell("p", -0.1, 0.8, figures=placed)], (), ("rouge", "model_utility"), 0.9, 0.7, None
    )
    assert "| -0.10 (position -0.10–0.30) | 0.800 |" in result.sweep_page(by_rouge), (
        "the distance stands beside the interval it is taken from"
    )
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == {"model": "m", "lr": 1e-4}
    tree = json.loads((tmp_path / "sweep.json").read_text())
    assert tree["front"] == ["one", "two"] and tree["recommended"] == "one" and len(tree["points"]) == 4
    assert (tmp_path / "sweep.png").stat().st_size > 5000 and "vega" in (tmp_path / "sweep.html").read_text()[
        :2000000
    ]


def test_where_no_point_keeps_enough_none_is_recommended(found: SweepResult, tmp_path: Path) -> None:
    result.save_sweep(found, tmp_path)
    poor = SweepResult(found.title, found.points, found.controls, found.judges, 1.2, 1.02, None)
    result.save_sweep(poor, tmp_path)
    page = (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert (
        "No point keeps 1.2 of the original's utility (1.020): the most is 0.900" in page
        and "★ |" not in page
    )
    assert not (tmp_path / "best.yaml").exists(), "that of an earlier sweep is gone"
    assert (
        "no point has figures of both"
        in SweepResult("", found.points[3:], (), found.judges, 0.9, 0.7, None).verdict()
    )


def test_the_figure_shows_the_front_between_the_controls(found: SweepResult) -> None:
    tree = result.sweep_figure(found).to_dict()
    points = [p for rows in tree["datasets"].values() for p in rows if "kind" in p]
    assert [(p["kind"], p["label"], p["x"], p["y"]) for p in points] == [
        ("recommended", "1", 0.8, -1.0),
        ("on the front", "2", 0.9, -2.0),
        ("point", "", 0.7, -4.0),
        ("original", "original", 0.85, -20.0),
        ("oracle", "oracle", 0.9, 0.0),
    ]
