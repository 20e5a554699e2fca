"""The plan: what is lacking is named, nothing is trained, the cost is counted, the request is judged."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from unremember import api
from unremember.data.split import Split
from unremember.engine.settings import Settings
from unremember.errors import DataError, ModelError
from unremember.models.presets import small_llama
from unremember.plan.card import PlanCard, plan
from unremember.plan.lacks import missing_requirements
from unremember.worlds.people import people_split

SETTINGS = Settings(epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def split() -> Split:
    return people_split(40)


@pytest.fixture(scope="module")
def model(tiny_llama: Any) -> Any:
    model = copy.deepcopy(tiny_llama)
    model.config.max_position_embeddings = 512
    return model


def plan_of(model: Any, tokenizer: Any, split: Split, method: str) -> PlanCard:
    return plan(api.load(model, tokenizer), split, api.method_of(method), SETTINGS, method)


def test_a_plan_counts_the_steps_and_trains_nothing(model: Any, tokenizer: Any, split: Split) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    card = plan_of(model, tokenizer, split, "gradient_difference")
    assert (
        card.steps == 2 * -(-len(split["forget"]) // 8)
        and card.seconds_a_step
        and card.seconds_a_step > 0
        and card.lacks == ()
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert card.hardness and card.hardness.steps == 20 and card.advice in ("go", "careful", "stop")
    row = card.row()
    assert (
        row["seconds"] == pytest.approx(card.steps * card.seconds_a_step, abs=0.1)
        and row["request"]["verdict"] == card.finding.verdict
    )
    assert any("cosine" in reason for reason in card.reasons)


def test_what_a_method_lacks_is_named_before_training(model: Any, tokenizer: Any, split: Split) -> None:
    bare = [{k: v for k, v in row.items() if k != "alternate"} for row in split["forget"].rows]
    card = plan_of(model, tokenizer, split.with_rows(forget=bare), "dpo")
    assert (
        [what.split(" (")[0] for what in card.lacks] == ["column 'alternate' of role 'forget'"]
        and card.advice == "stop"
        and card.steps == 0
    )
    alone = dataclasses.replace(split, roles={"forget": split["forget"]})
    card = plan_of(model, tokenizer, alone, "npo")
    assert (
        [what.split(" (")[0] for what in card.lacks] == ["role 'retain'"]
        and card.hardness is None
        and card.advice == "stop"
    )
    assert any("no retain set" in reason for reason in card.reasons)


def test_a_request_is_replaced_by_the_stored_text_it_matches(
    model: Any, tokenizer: Any, split: Split
) -> None:
    salted = [{**row, "question": f"Please tell me {row['question']}"} for row in split["forget"].rows]
    both = split.with_rows(forget=salted, stored=[*split["forget"].rows, *split["retain"].rows])
    card = plan_of(model, tokenizer, both, "gradient_difference")
    assert [row["question"] for row in card.finding.rows] == [row["question"] for row in split["forget"].rows]
    assert card.finding.action == "canonicalised"


def test_a_second_model_is_asked_for_and_must_be_of_the_same_kind(
    model: Any, tokenizer: Any, split: Split, tmp_path: Path
) -> None:
    card = plan_of(model, tokenizer, split, "whp")
    assert (
        card.advice == "stop"
        and card.steps == 0
        and "--only forget" in card.lacks[0]
        and "method.reinforced=RUN" in card.lacks[0]
    )
    with pytest.raises(DataError, match="learned the forget set further"):
        api.forget(model, split, "whp", tokenizer=tokenizer)
    with pytest.raises(ModelError, match="no model folder"):
        api.forget(model, split, {"name": "whp", "reinforced": str(tmp_path / "none")}, tokenizer=tokenizer)
    small = small_llama(350, hidden=32, layers=1, heads=2, context=64)
    api.load(small, tokenizer).save(tmp_path / "other")
    with pytest.raises(ModelError, match=r"has 350 tokens, the model 300"):
        api.forget(model, split, {"name": "whp", "reinforced": str(tmp_path / "other")}, tokenizer=tokenizer)


def test_neighbours_and_gradients_are_named_with_how_to_get_them(
    model: Any, tokenizer: Any, split: Split
) -> None:
    alone = split.with_rows(
        retain=[
            {k: v for k, v in r.items() if k not in ("neighbour", "relation")} for r in split["retain"].rows
        ]
    )
    card = plan_of(model, tokenizer, alone, "melu")
    names = [what.split(" (")[0] for what in card.lacks]
    assert card.advice == "stop" and names == [
        "column 'neighbour' of role 'retain'",
        "column 'relation' of role 'retain'",
    ]
    with pytest.raises(DataError, match=r"neighbour.*near to.*relation.*direct, indirect or general"):
        api.forget(model, alone, "melu", tokenizer=tokenizer)
    quantised = copy.deepcopy(model)
    quantised.is_quantized = True
    with pytest.raises(DataError, match=r"gradients: the weights are quantised.*--selection lora"):
        api.forget(quantised, split, "npo", tokenizer=tokenizer)
    assert (
        missing_requirements(api.method_of("npo", selection="lora"), split, quantised)
        == ()
        == missing_requirements(api.method_of("npo"), split, model)
    )
