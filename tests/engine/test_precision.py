"""A model that is stored in half precision is trained in single precision, and comes out as it was stored."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import unremember as un
from unremember.data.split import Split, make_split
from unremember.errors import ConfigError

HALF = torch.bfloat16
QUICK: dict[str, Any] = {"max_steps": 4, "batch_size": 4, "quiet": True}


@pytest.fixture(scope="module")
def split() -> Split:
    rows = [{"question": f"Who is {i}?", "answer": f"The baker {i}."} for i in range(8)]
    return make_split({"forget": rows[:4], "retain": rows[4:]})


@pytest.fixture
def half(model: Any) -> Any:
    """The tiny Llama in bfloat16."""
    return model.to(HALF)


def single(half: Any) -> Any:
    return copy.deepcopy(half).float()


def state(artefact: un.Artefact) -> dict[str, torch.Tensor]:
    return dict(artefact.model.state_dict())


@pytest.mark.parametrize("method", ["gradient_ascent", "npo", "gradient_difference", "task_vector"])
def test_its_steps_are_those_of_single_precision(
    method: str, half: Any, tokenizer: Any, split: Split
) -> None:
    """Whether the weights are rounded in the end is the only difference."""
    quick = {**QUICK, "lr": 1e-3, "tokenizer": tokenizer}
    exact = state(un.forget(single(half), split, method, **quick))
    kept = state(un.forget(copy.deepcopy(half), split, method, dtype="fp32", **quick))
    stored = state(un.forget(half, split, method, **quick))
    assert all(torch.equal(kept[name], exact[name]) and kept[name].dtype == torch.float32 for name in exact)
    assert all(torch.equal(stored[name], exact[name].to(HALF)) for name in exact)
    assert {value.dtype for value in stored.values()} == {HALF}


def test_small_steps_add_up_and_what_rounding_undoes_is_said(half: Any, tokenizer: Any, split: Split) -> None:
    """At 1e-6 no single step moves a weight to the next half-precision number."""
    quick = {**QUICK, "lr": 1e-6, "schedule": "constant", "warmup": 0.0, "tokenizer": tokenizer}
    before = {name: value.clone() for name, value in half.state_dict().items()}
    kept = state(un.forget(copy.deepcopy(half), split, "gradient_ascent", dtype="fp32", **quick))
    moved = [float((kept[name] != before[name].float()).float().mean()) for name in before]
    assert sum(moved) / len(moved) > 0.5
    with pytest.warns(UserWarning, match=r"9\d% of the weights that changed .* bfloat16: .*dtype=fp32"):
        un.forget(half, split, "gradient_ascent", **quick)


def test_adapters_learn_beside_half_precision(half: Any, tokenizer: Any, split: Split) -> None:
    types = set()

    def watch(model: Any, step: int) -> None:
        types.update(("lora_" in name, p.dtype) for name, p in model.named_parameters())

    quick = {**QUICK, "lr": 1e-2, "tokenizer": tokenizer, "watch": watch, "every": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        un.forget(half, split, "npo", selection="lora", **quick)
    assert types == {(True, torch.float32), (False, HALF)}


def test_a_stopped_run_goes_on_exactly_and_leaves_the_type(
    half: Any, tokenizer: Any, split: Split, tmp_path: Path
) -> None:
    def stop(model: Any, step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    quick = {**QUICK, "lr": 1e-3, "tokenizer": tokenizer}
    whole = state(un.forget(copy.deepcopy(half), split, "npo", **quick))
    cut = un.load(copy.deepcopy(half), tokenizer)
    with pytest.raises(KeyboardInterrupt):
        un.forget(cut, split, "npo", folder=tmp_path, watch=stop, every=1, inplace=True, **quick)
    assert {p.dtype for p in cut.model.parameters()} == {HALF}
    again = state(un.forget(half, split, "npo", folder=tmp_path, **quick))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_an_unknown_dtype_names_those_there_are(half: Any, tokenizer: Any, split: Split) -> None:
    with pytest.raises(ConfigError, match=r"unknown dtype 'fp16': .*Known: fp32, stored"):
        un.forget(half, split, "npo", dtype="fp16", tokenizer=tokenizer, **QUICK)
