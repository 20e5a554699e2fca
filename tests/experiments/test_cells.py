"""Cells end at matched forgetting, are read instead of run again, and become honest lines of a table."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from unremember import api
from unremember.data.alternates import read_invented
from unremember.data.split import Split
from unremember.experiments import arenas, cells, compare, hardness
from unremember.experiments.cells import Arena, CellPlan, run_cell
from unremember.experiments.table import cells_markdown, draw_crossing, recipe_row, spread_text
from unremember.observe.inventing import write_invented
from unremember.runs.matched import answer_probability
from unremember.runs.workers import workers
from unremember.tasks.artefact import Artefact, load_artefact
from unremember.tasks.language import LanguageTask
from unremember.worlds.people import people_split


@pytest.fixture(scope="module")
def arena(tokenizer: Any, tiny_llama: Any) -> Arena:
    """A model that learned eight questions, and one that never saw them."""
    whole = people_split(20, seed=2)
    rows = {role: whole[role].rows[:8] for role in ("forget", "retain", "holdout", "world_facts")}
    split = Split({name: whole.with_rows(**rows)[name] for name in rows}, ("world_facts",), "few")
    model = copy.deepcopy(tiny_llama)
    model.config.max_position_embeddings = 512
    oracle = Artefact(model, LanguageTask.of(model, tokenizer, "{question}\n"))
    done = api.train(
        oracle,
        split,
        epochs=60,
        batch_size=8,
        lr=1e-2,
        weight_decay=0.0,
        quiet=True,
    )
    return Arena("few", split, done, (oracle,), 8, 40, 2, (1e-3, 3e-3))


def run(arena: Arena, plan: CellPlan, folder: Path) -> dict[str, Any]:
    """The cell of one plan."""
    return run_cell((arena, folder), plan)


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unremember.observe.kinds.generations.LIMIT", 4)


def test_a_run_ends_at_the_first_look_below_the_target(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = answer_probability(arena.original, arena.split)
    assert start > 0.5 > arena.target > 0
    plan = CellPlan("ascent", "gradient_ascent", 0, 3e-3)
    cell = run(arena, plan, tmp_path)
    assert (
        cell["reached"]
        and cell["level"] <= arena.target < start
        and 0 < cell["steps"] < arena.limit
        and cell["steps"] % arena.every == 0
    )
    assert answer_probability(arena.original, arena.split) == start, "the original is left as it is"
    monkeypatch.setattr(api, "forget", None)
    assert run(arena, plan, tmp_path) == cell, "read, not run"
    with pytest.raises(TypeError):
        run(dataclasses.replace(arena, limit=6), plan, tmp_path)


def test_cells_behind_a_page_are_gone_on_from_elsewhere(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, page = CellPlan("ascent", "gradient_ascent", cells.EXPLORATORY, 3e-3), tmp_path / "methods.json"
    cell = run(arena, plan, tmp_path / "here")
    cells.publish_cells(arena, tmp_path / "here", page)
    cells.publish_cells(dataclasses.replace(arena, name="other"), tmp_path / "nothing", page)
    cells.restore_cells(arena, tmp_path / "there", page)
    cells.restore_cells(dataclasses.replace(arena, limit=6), tmp_path / "another", page)
    monkeypatch.setattr(api, "forget", None)
    assert run(arena, plan, tmp_path / "there") == cell, "read, not run"
    assert not (tmp_path / "another").exists(), "cells of another arena are not taken over"
    with pytest.raises(TypeError):
        run(arena, dataclasses.replace(plan, method={"name": "simnpo", "beta": 3.0}), tmp_path / "there")


def test_an_exploratory_run_is_read_for_its_utility_alone(arena: Arena, tmp_path: Path) -> None:
    there, not_there = (
        run(
            dataclasses.replace(arena, limit=limit),
            CellPlan("ascent", "gradient_ascent", cells.EXPLORATORY, rate),
            tmp_path,
        )
        for limit, rate in ((arena.limit, 3e-3), (2, 1e-6))
    )
    assert set(there["figures"]) == {"model_utility"} and not_there["figures"] == {}
    assert cells.best_cell([there, not_there]) is there


def test_a_method_that_turns_the_weights_round_at_its_end_is_read_there(arena: Arena, tmp_path: Path) -> None:
    """A task vector learns the forget set ever better, and is subtracted after the last look."""
    seen: dict[str, Any] = {}
    made = cells.run_to_target(
        dataclasses.replace(arena, limit=12), CellPlan("task_vector", "task_vector", 0, 3e-3), seen
    )
    start = answer_probability(arena.original, arena.split)
    assert seen["steps"] == 12 and seen["level"] == answer_probability(made, arena.split) < start - 0.1
    assert seen["reached"] == (seen["level"] <= arena.target)


def test_a_method_is_given_what_the_arena_has_for_it(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[CellPlan] = []
    monkeypatch.setattr(cells, "run_cell", lambda shared, plan: asked.append(plan) or fake(plan.name, 0.5))
    given = dataclasses.replace(arena, settings={"npo": {"beta": 0.5}})
    compare.arena_table(given, {name: (name, {}) for name in ("npo", "simnpo")}, tmp_path)
    assert {str(p.method) for p in asked} == {"{'name': 'npo', 'beta': 0.5}", "simnpo", "retain_descent"}
    assert given.digest == arena.digest, "a cell's own digest has it"


def test_a_cell_knows_the_invented_answers_and_not_their_place(arena: Arena, tmp_path: Path) -> None:
    def digest(place: str, answer: str) -> str:
        write_invented(tmp_path / place, arena.split["forget"], [[answer]] * len(arena.split["forget"]))
        return CellPlan("altpo", {"name": "altpo", "alternates": str(tmp_path / place)}, 0, 1e-3).digest

    assert (
        digest("a", "Osk")
        == digest("b", "Osk")
        != digest("b", "Tarn")
        != CellPlan("altpo", "altpo", 0, 1e-3).digest
    )


def test_an_arenas_original_invents_once(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = arenas.invented_answers(arena, tmp_path)
    rows = read_invented(file, arena.split["forget"])
    assert len(rows) > len(arena.split["forget"]) and all(
        row["alternate"] not in ("", row["answer"]) for row in rows
    )
    monkeypatch.setattr("unremember.experiments.arenas.invent", None)
    assert arenas.invented_answers(arena, tmp_path) == file


def test_an_arenas_original_is_reinforced_once(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the forget set alone; a cell knows the reinforced model and not its place."""
    monkeypatch.setattr(arenas, "REINFORCING", {"max_steps": 4, "lr": 1e-3, "batch_size": 16, "quiet": True})
    folder = arenas.reinforced_model(arena, tmp_path / "here")
    learner = load_artefact(folder)
    forget, retain = (
        answer_probability(learner, arena.split, role) - answer_probability(arena.original, arena.split, role)
        for role in ("forget", "retain")
    )
    assert forget > retain

    def digest(place: Path) -> str:
        return CellPlan("whp", {"name": "whp", "reinforced": str(place)}, 0, 1e-3).digest

    shutil.copytree(folder, tmp_path / "there" / "model")
    arena.original.save(tmp_path / "other")
    assert digest(folder) == digest(tmp_path / "there") != digest(tmp_path / "other")
    monkeypatch.setattr(api, "train", None)
    assert arenas.method_settings(arena, tmp_path / "here", ["npo", "whp"]) == {
        "whp": {"reinforced": str(folder), "strength": 20.0}
    }


def test_workers_give_what_this_process_gives(
    arena: Arena, tmp_path: Path, in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, and in order: on real Ray with one core."""
    import ray

    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    few = dataclasses.replace(arena, limit=2)
    plans = [CellPlan(name, name, cells.EXPLORATORY, 1e-6) for name in ("gradient_ascent", "npo")]
    try:
        there = in_process(workers(), "cells", run_cell, (few, tmp_path / "there"), plans)
    finally:
        ray.shutdown()
    here = [run(few, plan, tmp_path / "here") for plan in plans]
    blank = {"seconds": 0.0, "figures": {}}
    assert [{**cell, **blank} for cell in there] == [{**cell, **blank} for cell in here]
    assert len({cell["digest"] for cell in here}) == 2 and not here[0]["reached"]


def test_finished_cells_need_no_worker(arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = dataclasses.replace(arena, limit=2)
    plans = [CellPlan("ascent", "gradient_ascent", cells.EXPLORATORY, rate) for rate in (1e-6, 2e-6)]
    first = compare.run_plans(few, plans, tmp_path, "rates")
    monkeypatch.setattr(compare, "workers", None)
    assert compare.run_plans(few, plans[::-1], tmp_path, "rates") == first[::-1]


def test_the_control_takes_as_many_steps_as_it_is_told(arena: Arena, tmp_path: Path) -> None:
    cell = run(arena, CellPlan("retain_descent", "retain_descent", 0, 1e-3, {}, 3), tmp_path)
    assert cell["steps"] == 3 and not cell["reached"]


def test_what_does_not_run_is_a_recorded_result(arena: Arena, tmp_path: Path) -> None:
    bare = arena.split.with_rows(
        forget=[{k: v for k, v in r.items() if k != "alternate"} for r in arena.split["forget"].rows]
    )
    cell = run(dataclasses.replace(arena, split=bare), CellPlan("dpo", "dpo", 0, 1e-3), tmp_path)
    assert (
        cell["figures"] == {}
        and cell["note"].startswith("does not run here: ")
        and "alternate" in cell["note"]
    )
    assert "does not run here" in cells_markdown([("dpo", [cell])])
    wild = run(arena, CellPlan("wild", "gradient_ascent", 0, 1e30), tmp_path)
    assert wild["note"].startswith("collapsed") and wild["figures"] == {}


def fake(name: str, utility: float | None, reached: bool = True, level: float = 0.1) -> dict[str, Any]:
    figures = {
        "model_utility": {"value": utility},
        "forget_quality": {"value": 0.1, "extra": {"log10_p": -1.0}},
    }
    return {"name": name, "figures": figures, "reached": reached, "level": level, "steps": 4, "rate": 1e-3}


def test_the_best_rate_reached_the_target_and_kept_most() -> None:
    tried = [fake("a", 0.9, reached=False), fake("b", 0.5), fake("c", 0.7)]
    assert cells.best_cell(tried)["name"] == "c"
    assert cells.best_cell([fake("a", 0.9, False, 0.6), fake("b", 0.2, False, 0.3)])["name"] == "b", (
        "else the most forgetful"
    )


def test_a_line_says_how_many_seeds_reached_the_target() -> None:
    line = recipe_row("npo", [fake("npo", 0.5), fake("npo", 0.7, reached=False)])
    assert line[0] == "npo (1 of 2 reached the target)" and line[1:3] == ["0.001", "4 (4 … 4)"]
    assert line[3] == "-1.0 (-1.0 … -1.0)" and line[4] == "0.600 (0.500 … 0.700)" and line[5] == "–"
    assert spread_text([None, 0.25]) == "0.250" and spread_text([]) == "–"


def test_a_table_has_its_controls_and_a_page_its_figure(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "CONFIRMATORY", (0, 1))
    rows = compare.arena_table(
        dataclasses.replace(arena, limit=6), {"gradient_ascent": ("gradient_ascent", {})}, tmp_path / "cells"
    )
    assert [name for name, _ in rows] == ["original", "oracle", "retain_descent", "gradient_ascent"] and len(
        rows[-1][1]
    ) == 2
    assert {cell["seed"] for cell in rows[-1][1]} == {0, 1} and rows[-1][1][0]["rate"] in arena.rates
    page = compare.comparison_page("Methods", "How.", [(arena, rows)], tmp_path / "out" / "methods.md")
    text = page.read_text(encoding="utf-8")
    assert (
        "| retain_descent |" in text
        and f"{arena.target:.3f}" in text
        and (tmp_path / "out" / "methods-few.png").stat().st_size > 5000
    )


def test_every_method_but_the_controls_is_compared() -> None:
    names = set(compare.every_method())
    assert {"npo", "gu", "klue"} <= names and not names & {"retrain", "retain_descent"}
    assert len(compare.crossed_recipes("npo")) == len(compare.CROSSED_BLENDS) * len(
        compare.CROSSED_SAMPLINGS
    ) * len(compare.CROSSED_SELECTIONS)
    assert all(
        compare.paired_name(name) in compare.crossed_recipes("npo") for name in compare.crossed_recipes("npo")
    )
    assert compare.paired_name("gu · melu · lora") == "gu · paired · lora"


def test_the_crossing_has_a_panel_a_selection_with_the_controls_in_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        ("oracle", [fake("oracle", 0.9)]),
        ("gu · paired · all", [fake("a", 0.5), fake("b", 0.7)]),
        ("gu · melu · lora", [fake("c", 0.3, reached=False)]),
    ]
    drawn: list[Any] = []
    monkeypatch.setattr(alt.FacetChart, "save", lambda self, path, **how: drawn.append(self.to_dict()))
    draw_crossing(rows, "Crossed", tmp_path / "crossed.png")
    (points,) = drawn[0]["datasets"].values()
    assert [(p["blend"], p["sampling"], p["selection"], p["opacity"]) for p in points] == [
        ("oracle", "control", "all", 1.0),
        ("oracle", "control", "lora", 1.0),
        ("gu", "paired", "all", 1.0),
        ("gu", "melu", "lora", 0.25),
    ]
    assert (points[2]["x"], points[2]["x0"], points[2]["x1"]) == (pytest.approx(0.6), 0.5, 0.7)


def test_a_part_is_judged_in_its_own_cells_that_reached_the_target() -> None:
    rows = [
        ("original", [fake("original", 0.9)]),
        ("gu · paired · all", [fake("a", 0.5), fake("b", 0.7)]),
        ("gu · melu · lora", [fake("c", 0.3)]),
        ("sum · melu · lora", [fake("d", 0.9, reached=False), {**fake("e", 0.9), "figures": {}}]),
    ]
    lines = dict(line.strip("| ").split(" | ", 1) for line in compare.margins_markdown(rows).splitlines())
    assert lines["gu"].startswith("3 of 3 | 0.500 (0.300 … 0.700)") and lines["melu"].startswith(
        "1 of 2 | 0.300"
    )
    assert lines["sum"].startswith("0 of 1 | –") and lines["guard_attribution"].startswith("0 of 0")


def test_the_cost_of_a_request_is_what_the_retained_answers_lose(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The further the forget answers must fall, the more; the original is left as it is."""
    monkeypatch.setattr(hardness, "_RATE", 3e-3)
    before = answer_probability(arena.original, arena.split, "retain")
    costs = []
    for target in (0.9, 0.02):
        monkeypatch.setattr(hardness, "_TARGET", target)
        costs.append(hardness.forgetting_cost(arena.original, arena.split, 0))
    assert 0 < costs[0] < costs[1] <= before and costs[1] > 0.1
    assert answer_probability(arena.original, arena.split, "retain") == before > 0.5
