"""A probe runs once, disturbs nothing, and tells rounding from another result."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from unremember.models.probing import agrees, equal_states, probe_ids


@pytest.mark.parametrize(
    ("shift", "kind", "equal"),
    [
        (0.0, torch.float32, True),
        (3e-6, torch.float32, True),
        (1e-4, torch.float32, False),
        (1e-2, torch.bfloat16, True),
        (5e-2, torch.bfloat16, False),
        (1e-4, torch.float64, False),
        (float("nan"), torch.float32, False),
    ],
)
def test_states_are_equal_up_to_the_rounding_of_their_type(shift: float, kind: Any, equal: bool) -> None:
    states = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).to(kind)
    assert equal_states(states * (1 + shift), states) is equal


def test_a_collapsed_model_agrees_with_itself() -> None:
    assert equal_states(torch.full((2, 3), torch.nan), torch.full((2, 3), torch.nan))


def test_a_probe_runs_once_and_copies_keep_its_answer(model: Any) -> None:
    runs: list[int] = []

    def compute(size: int, shift: float) -> tuple[Tensor, Tensor]:
        runs.append(size)
        assert not model.training and not torch.is_grad_enabled()
        return torch.ones(2, 3), torch.ones(2, 3) + shift

    model.train()
    model.lm_head.eval()
    state = torch.get_rng_state()
    assert agrees(model, "a question", 1, compute=lambda: compute(1, 0.0))
    assert not agrees(model, "a question", 2, compute=lambda: compute(2, 1.0))
    assert model.training and model.model.training and not model.lm_head.training
    assert torch.equal(torch.get_rng_state(), state)
    for copied in (model, copy.deepcopy(model)):
        assert agrees(copied, "a question", 1, compute=lambda: pytest.fail("it ran again"))
    assert runs == [1, 2]
    assert not any(name.startswith("_probed") for name in model.state_dict())


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, IndexError, NotImplementedError])
def test_a_model_that_raises_does_not_agree(error: type[Exception], model: Any) -> None:
    def compute() -> tuple[Tensor, Tensor]:
        raise error("the mask has four dimensions")

    assert not agrees(model, "a question", compute=compute)


def test_an_interruption_is_no_answer(model: Any) -> None:
    def interrupted() -> tuple[Tensor, Tensor]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agrees(model, "a question", compute=interrupted)
    assert agrees(model, "a question", compute=lambda: (torch.ones(1, 1), torch.ones(1, 1)))


def test_probe_ids_are_of_the_vocabulary_and_neighbours_differ(model: Any) -> None:
    ids = probe_ids(model, 700)
    assert 0 <= ids.min() and ids.max() < 300 and bool((ids[1:] != ids[:-1]).all())
