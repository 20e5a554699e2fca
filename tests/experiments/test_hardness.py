"""Requests of every kind have their size and overlap; a request is measured once; the page says what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from unremember import api
from unremember.experiments import hardness
from unremember.experiments.hardness import DOUBLED, SHARES, kind, request
from unremember.worlds.people import people


@pytest.fixture(scope="module")
def rows() -> list[Mapping[str, Any]]:
    world = people(40, seed=0)
    return [*world["forget"].rows, *world["retain"].rows]


def test_every_kind_of_request_comes_as_often() -> None:
    kinds = [kind(number) for number in range(hardness.REQUESTS)]
    assert {kinds.count(pair) for pair in kinds} == {3} and len(set(kinds)) == len(SHARES) * len(DOUBLED)


@pytest.mark.parametrize("number", range(8))
def test_a_request_is_a_share_of_some_people(number: int, rows: list[Mapping[str, Any]]) -> None:
    share, doubled = kind(number)
    split = request(rows, number)
    asked, kept = split["forget"].rows, split["retain"].rows
    named = {row["entity"] for row in asked}
    assert 0.7 * 4 / share < len(named) <= 4 / share and 0.5 * 36 < len(asked) < 1.5 * 36
    assert (share == 1) == named.isdisjoint(row["entity"] for row in kept[: len(rows) - len(asked)])
    assert len(kept) == len(rows) - len(asked) + (len(asked) if doubled else 0)
    again = [(row["paraphrased_question"], row["answer"]) for row in asked]
    assert all(((q, a) in {(row["question"], row["answer"]) for row in kept}) == doubled for q, a in again)
    assert request(rows, number).digest == split.digest


def test_a_request_is_judged_and_forgotten_once(
    rows: list[Mapping[str, Any]], tokenizer: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.config.max_position_embeddings = 1024
    few = [row for row in rows if row["entity"] in sorted({str(row["entity"]) for row in rows})[:5]]
    monkeypatch.setattr(hardness, "LIMIT", 2)
    original = api.Result(model, api.task_for(model, tokenizer), "digest")
    found = hardness.measure(original, few, 0, tmp_path)
    assert -1 <= found["cosine"] <= 1 and found["share"] == 1 and abs(found["cost"]) < 0.1
    monkeypatch.setattr(hardness, "outcome", None)
    assert hardness.measure(original, few, 0, tmp_path) == found, "read, not run"
    with pytest.raises(TypeError):
        hardness.measure(api.Result(model, original.task, "another"), few, 0, tmp_path)


def test_the_page_holds_what_was_found(tmp_path: Path) -> None:
    found = [
        {"share": kind(i)[0], "doubled": kind(i)[1], "cosine": i / 10, "cost": (i / 10) ** 2}
        for i in range(8)
    ]
    made = hardness.page("people-20", api.Result(None, None, "abcdef0123456789"), found, tmp_path)  # type: ignore[arg-type]
    text = (tmp_path / "hardness.md").read_text()
    assert made.rho == pytest.approx(1) and "**1.00**" in text and "| 25% | yes | 1 | 0.700 | 0.490 |" in text
    assert (tmp_path / "hardness-people-20.png").stat().st_size > 1000 and json.dumps(made.cost)
