"""Samplings: every anchor row once an epoch, an order that a deletion does not disturb, resume from a
position."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from unremember.data.ordering import epoch_order, mix
from unremember.engine.samplings import Batch, Sampling
from unremember.engine.samplings.cyclic import Cyclic
from unremember.engine.samplings.paired import Paired


@dataclasses.dataclass(frozen=True)
class Run:
    """A stand-in for the engine's context."""

    keys: dict[str, np.ndarray]
    batch_size: int = 4
    seed: int = 0

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(self.keys)


def keys(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


FORGET, RETAIN = keys(10, 1), keys(23, 2)


def run(**changes: object) -> Run:
    return dataclasses.replace(Run({"forget": FORGET, "retain": RETAIN}), **changes)


def steps(sampling: Sampling, context: Run, count: int, position: int = 0) -> Iterator[Batch]:
    state = {**sampling.init(context), "position": position}
    for _ in range(count):
        step, state = sampling.apply(context, state)
        yield step


def drawn(sampling: Sampling, context: Run, role: str, epoch: int = 0) -> list[int]:
    size = sampling.steps_per_epoch(context)
    return [int(row) for step in steps(sampling, context, size, epoch * size) for row in step[role].rows]


def test_paired_meets_each_anchor_row_once_an_epoch() -> None:
    assert Paired().steps_per_epoch(run()) == 3
    orders = [drawn(Paired(), run(), "forget", epoch) for epoch in range(4)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4, "another order in each epoch"
    assert [len(step["forget"].rows) for step in steps(Paired(), run(), 3)] == [4, 4, 2]


def test_paired_draws_partners_from_the_whole_role() -> None:
    partners = Counter(row for epoch in range(60) for row in drawn(Paired(), run(), "retain", epoch))
    assert sum(partners.values()) == 600 and set(partners) == set(range(23))
    expected = 600 / 23
    assert sum((n - expected) ** 2 / expected for n in partners.values()) < 48.3, (
        "chi-squared, 22 degrees, p = 0.001"
    )


def test_paired_partners_of_two_roles_are_independent() -> None:
    context = run(keys={"forget": FORGET, "retain": RETAIN, "world": keys(23, 2)})
    assert drawn(Paired(), context, "retain") != drawn(Paired(), context, "world")


def test_cyclic_covers_the_longest_role_and_starts_the_others_over() -> None:
    assert Cyclic().steps_per_epoch(run()) == 6
    for epoch in range(3):
        assert sorted(drawn(Cyclic(), run(), "retain", epoch)) == list(range(23))
        forget = drawn(Cyclic(), run(), "forget", epoch)
        assert (
            forget[:10] == forget[10:20]
            and forget[20:] == forget[:3]
            and sorted(forget[:10]) == list(range(10))
        )


@pytest.mark.parametrize("sampling", [Paired(), Cyclic()], ids=["paired", "cyclic"])
def test_a_step_pairs_rows_one_to_one_with_unit_weights(sampling: Sampling) -> None:
    for step in steps(sampling, run(), 8):
        assert list(step) == ["forget", "retain"]
        assert len(step["forget"].rows) == len(step["retain"].rows)
        for draw in step.values():
            assert (
                draw.rows.dtype == np.int64 and draw.weights.dtype == np.float32 and (draw.weights == 1).all()
            )


@pytest.mark.parametrize("sampling", [Paired(), Cyclic()], ids=["paired", "cyclic"])
def test_a_run_resumes_from_its_position(sampling: Sampling) -> None:
    whole = list(steps(sampling, run(), 12))
    for cut in (1, 5, 7):
        for before, after in zip(whole[cut:], steps(sampling, run(), 12 - cut, cut)):
            assert all(np.array_equal(before[role].rows, after[role].rows) for role in before)


@pytest.mark.parametrize("sampling", [Paired(), Cyclic()], ids=["paired", "cyclic"])
def test_the_seed_decides_the_order(sampling: Sampling) -> None:
    assert drawn(sampling, run(seed=5), "forget") == drawn(sampling, run(seed=5), "forget")
    assert drawn(sampling, run(seed=5), "forget") != drawn(sampling, run(seed=6), "forget")
    assert drawn(sampling, run(seed=5), "retain") != drawn(sampling, run(seed=6), "retain")


@pytest.mark.parametrize("sampling", [Paired(), Cyclic()], ids=["paired", "cyclic"])
def test_state_stays_a_plain_position(sampling: Sampling) -> None:
    first = sampling.init(run())
    _, second = sampling.apply(run(), first)
    assert first == {"position": 0} and second == {"position": 1}


def pairs(context: Run, epoch: int) -> list[tuple[int, int]]:
    """(anchor key, partner row) in the order of an epoch."""
    rows = drawn(Paired(), context, "forget", epoch)
    return list(
        zip((int(context.keys["forget"][row]) for row in rows), drawn(Paired(), context, "retain", epoch))
    )


@pytest.mark.parametrize("gone", [0, 4, 9])
def test_deleting_a_row_moves_no_other(gone: int) -> None:
    less = run(keys={"forget": np.delete(FORGET, gone), "retain": RETAIN})
    for epoch in range(3):
        assert pairs(less, epoch) == [pair for pair in pairs(run(), epoch) if pair[0] != int(FORGET[gone])]


@pytest.mark.parametrize("gone", [0, 11, 22])
def test_deleting_a_row_of_the_longest_role_leaves_the_order_of_a_cycle(gone: int) -> None:
    less = run(keys={"forget": FORGET, "retain": np.delete(RETAIN, gone)})
    for epoch in range(3):
        left = [int(less.keys["retain"][row]) for row in drawn(Cyclic(), less, "retain", epoch)]
        assert left == [int(RETAIN[row]) for row in drawn(Cyclic(), run(), "retain", epoch) if row != gone]


def test_the_place_of_a_row_in_the_data_is_no_matter() -> None:
    turned = run(keys={"forget": FORGET[::-1].copy(), "retain": RETAIN})
    assert pairs(turned, 0) == pairs(run(), 0)


def test_mixing_is_a_permutation_that_looks_random() -> None:
    many = np.arange(4096, dtype=np.uint64)
    hashes = mix(many, 0, 0)
    assert len(np.unique(hashes)) == 4096 and hashes.dtype == np.uint64
    bits = np.unpackbits(hashes.view(np.uint8)).reshape(4096, 64).mean(0)
    assert abs(bits - 0.5).max() < 0.05
    assert abs(np.corrcoef(epoch_order(many, 0, 0), epoch_order(many, 0, 1))[0, 1]) < 0.06
    assert not np.array_equal(mix(many, 1, 2), mix(many, 2, 1)), "seed and epoch are not interchangeable"
