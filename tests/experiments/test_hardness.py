"""Requests of every kind have their size and overlap; each is measured once; the page says the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unremember.experiments import hardness
from unremember.experiments.hardness import DOUBLED, SHARES, draw_request, request_kind
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.worlds.people import people_split


@pytest.fixture(scope="module")
def rows() -> list[Mapping[str, Any]]:
    world = people_split(40, seed=0)
    return [*world["forget"].rows, *world["retain"].rows]


def test_every_kind_of_request_comes_as_often() -> None:
    kinds = [request_kind(number) for number in range(hardness.HARDNESS_REQUESTS)]
    assert {kinds.count(pair) for pair in kinds} == {3} and len(set(kinds)) == len(SHARES) * len(DOUBLED)


@pytest.mark.parametrize("number", range(8))
def test_a_request_is_a_share_of_some_people(number: int, rows: list[Mapping[str, Any]]) -> None:
    share, doubled = request_kind(number)
    split = draw_request(rows, number)
    asked, kept = split["forget"].rows, split["retain"].rows
    named = {row["entity"] for row in asked}
    assert 0.7 * 4 / share < len(named) <= 4 / share and 0.5 * 36 < len(asked) < 1.5 * 36
    assert (share == 1) == named.isdisjoint(row["entity"] for row in kept[: len(rows) - len(asked)])
    assert len(kept) == len(rows) - len(asked) + (len(asked) if doubled else 0)
    again = [(row["paraphrased_question"], row["answer"]) for row in asked]
    assert all(((q, a) in {(row["question"], row["answer"]) for row in kept}) == doubled for q, a in again)
    assert draw_request(rows, number).digest == split.digest


def test_a_request_is_judged_and_forgotten_once(
    rows: list[Mapping[str, Any]], tokenizer: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.config.max_position_embeddings = 1024
    few = [row for row in rows if row["entity"] in sorted({str(row["entity"]) for row in rows})[:5]]
    monkeypatch.setattr(hardness, "_LIMIT", 2)
    original = Artefact(model, LanguageTask.of(model, tokenizer))
    found = hardness.measure_request((original, few, tmp_path), 0)
    assert -1 <= found["cosine"] <= 1 and found["share"] == 1 and abs(found["cost"]) < 0.1
    monkeypatch.setattr(hardness, "forgetting_cost", None)
    assert hardness.measure_request((original, few, tmp_path), 0) == found, "read, not run"
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    with pytest.raises(TypeError):
        hardness.measure_request((Artefact(model, original.task), few, tmp_path), 0)


def test_the_page_holds_what_was_found(tmp_path: Path) -> None:
    found = [
        {"share": request_kind(i)[0], "doubled": request_kind(i)[1], "cosine": i / 10, "cost": (i / 10) ** 2}
        for i in range(8)
    ]
    original: Any = SimpleNamespace(weights="abcdef0123456789")
    made = hardness.hardness_page("people-20", original, found, tmp_path)
    text = (tmp_path / "hardness.md").read_text()
    assert made.rho == pytest.approx(1) and "**1.00**" in text and "| 25% | yes | 1 | 0.700 | 0.490 |" in text
    assert (tmp_path / "hardness-people-20.png").stat().st_size > 1000 and json.dumps(made.cost)
