"""The multiplier of the retain constraint against the published trace."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from given import Given

from unremember.engine.blends.primal_dual import PrimalDual

FORGET, RETAIN = 0.863281250000, 0.743668380629
START = SimpleNamespace(roles=("forget", "retain"), keys={"forget": range(10)}, batch_size=4)


def measured() -> Given:
    """One weight whose gradients are the losses themselves, so the update is the weighted sum of the
    losses."""
    given = {
        role: [torch.tensor([value], dtype=torch.float64)]
        for role, value in (("forget", FORGET), ("retain", RETAIN))
    }
    return Given(given, of_losses={"retain": RETAIN})


def test_the_published_trace() -> None:
    """γ = α = 1, ε = 0.5, step 1 on a fixed batch: the loss (its constant -α ε included) and the multiplier
    after it."""
    blend: Any = PrimalDual(eps=0.5, warmup=0)
    state, trace = blend.init(START), []
    for _ in range(3):
        dual = state["dual"]
        (update,), state = blend.apply(measured(), state)
        trace += [update.item() - dual * 0.5, state["dual"]]
    assert trace == pytest.approx(
        [1.106949630629, 1.243668380629, 1.166323910347, 1.487336761257, 1.225698190065, 1.731005141886],
        abs=1e-9,
    )


def test_a_kept_constraint_gives_its_weight_back_but_never_below_nothing() -> None:
    blend: Any = PrimalDual(eps=1.5, start=1.0, warmup=0)
    _, state = blend.apply(measured(), blend.init(START))
    assert state["dual"] == pytest.approx(1 + RETAIN - 1.5)
    (update,), state = blend.apply(measured(), state)
    assert state["dual"] == 0 and update.item() == pytest.approx(FORGET + (1 + RETAIN - 1.5) * RETAIN)


def test_the_multiplier_rests_while_it_warms_up() -> None:
    """Two epochs of ten rows in batches of four are six steps."""
    blend: Any = PrimalDual(eps=0.5, warmup=2)
    state = blend.init(START)
    for _ in range(6):
        _, state = blend.apply(measured(), state)
    assert state["dual"] == 1
    assert blend.apply(measured(), state)[1]["dual"] > 1
