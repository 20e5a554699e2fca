"""Several processes give what one gives: runs, observations, shares, interrupts and resumed runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import several
import unremember
from unremember import processes
from unremember.engine import checkpoint, gradients
from unremember.engine.weights import join_processes
from unremember.errors import ConfigError

CLOSE = 1e-5
"""How far a result may be from a single process's, relative to the run's whole change of the weights."""


def launch(folder: Path, names: list[str], count: int = 2, seconds: int = 600) -> None:
    """Run the worker in ``count`` processes, as ``torchrun`` would; none outlives this call."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    source = str(Path(unremember.__file__).parents[1])
    shared = {
        "PYTHONPATH": source,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    logs = [(folder / f"process{rank}.log").open("w") for rank in range(count)]
    started = [
        subprocess.Popen(
            [sys.executable, several.__file__, str(folder), ",".join(names)],
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                **shared,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(count),
            },
        )
        for rank, log in enumerate(logs)
    ]
    try:
        for process in started:
            assert process.wait(seconds) == 0, "\n".join(
                (folder / f"process{rank}.log").read_text()[-3000:] for rank in range(count)
            )
    finally:
        for process, log in zip(started, logs):
            process.kill()
            process.wait()
            log.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which two processes ran everything, beside a run that one process began."""
    folder = tmp_path_factory.mktemp("two")
    torch.set_num_threads(1)
    assert several.interrupted(several.CUT, folder / "begun", several.cut, max_steps=4)
    launch(folder, list(several.SHARDED))
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a recipe's run in this process, which is run once."""
    folder = tmp_path_factory.mktemp("one")

    def ask(name: str) -> Path:
        if not (folder / f"{name}.safetensors").exists():
            several.runs(folder, [name])
        return folder

    return ask


def change(weights: dict[str, Tensor], of: dict[str, Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm([weights[name] - of[name] for name in weights]))


def assert_alike(first: Path, second: Path, name: str) -> None:
    """Weights within ``CLOSE`` of the run's change, logged figures within ``CLOSE`` of themselves."""
    first_weights, second_weights = (load_file(folder / f"{name}.safetensors") for folder in (first, second))
    start = several.original().model.state_dict()
    moved = change(first_weights, start)
    assert moved > 1e-5 and change(second_weights, first_weights) <= CLOSE * moved, (
        f"{change(second_weights, first_weights) / moved:.2g} of the change"
    )
    rows = [
        [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
        for folder in (first, second)
    ]
    assert len(rows[0]) == len(rows[1]) > 1
    for left, right in zip(*rows):
        assert right == pytest.approx(left, rel=CLOSE, abs=1e-9)


@pytest.mark.parametrize("name", several.SHARDED)
def test_sharded_weights_end_where_one_process_does(
    name: str, single: Callable[[str], Path], two: Path
) -> None:
    assert_alike(single(name), two / "sharded", name)


@pytest.mark.parametrize("name", several.WHOLE)
def test_whole_weights_end_where_one_process_does(
    name: str, single: Callable[[str], Path], two: Path
) -> None:
    assert_alike(single(name), two / "whole", name)


def test_blocks_are_gathered_again_for_checkpointed_gradients(
    single: Callable[[str], Path], two: Path
) -> None:
    assert_alike(single("npo"), two / "again", "npo")


@pytest.mark.full
def test_every_method_sharded_over_three_processes(single: Callable[[str], Path], tmp_path: Path) -> None:
    assert several.interrupted(several.CUT, tmp_path / "begun", several.cut, max_steps=4)
    names = list(several.recipes())
    launch(tmp_path, names, count=3, seconds=1800)
    for name in names:
        assert_alike(single(name), tmp_path / "sharded", name)


def test_a_run_goes_on_with_another_number_of_processes(two: Path, tmp_path: Path) -> None:
    """Two to one and one to two, with a blend that remembers gradients."""
    several.outcome(several.run(several.CUT, tmp_path / "begun", max_steps=4), tmp_path, "begun")
    assert_alike(tmp_path, two, "begun")
    flat = checkpoint.latest_checkpoint(two / "cut" / "checkpoint")
    assert flat is not None and flat["position"] == 2, "two processes were cut at their second step"
    several.outcome(several.run(several.CUT, two / "cut", max_steps=4), two, "cut")
    (tmp_path / "begun").rename(tmp_path / "cut")
    (tmp_path / "begun.safetensors").rename(tmp_path / "cut.safetensors")
    assert_alike(tmp_path, two, "cut")


def test_an_interrupt_of_one_process_stops_all_at_the_same_step(two: Path) -> None:
    flat = checkpoint.latest_checkpoint(two / "stopped" / "checkpoint")
    assert (
        flat is not None
        and flat["position"] == 2
        and len((two / "stopped" / "log.jsonl").read_text().splitlines()) == 2
    )


def test_observations_are_those_of_one_process_bit_for_bit(two: Path, tmp_path: Path) -> None:
    several.observed(tmp_path)
    own, shared = (json.loads((folder / "observed.json").read_text()) for folder in (tmp_path, two))
    assert own["batches"] > 1 and len(own["generations"]) == 61 and any(own["generations"])
    assert own == shared
    names = [sorted(path.name for path in (folder / "store").iterdir()) for folder in (tmp_path, two)]
    assert names[0] == names[1] and not any(name.endswith(".partial") for name in names[0])


# --- shares, in the place of one process of several ---


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Be process ``rank`` of ``count``."""

    def be(rank: int, count: int) -> None:
        monkeypatch.setattr(
            processes, "process_state", lambda: SimpleNamespace(process_index=rank, num_processes=count)
        )

    return be


def test_a_share_is_every_nth_part_and_the_idle_repeat_one_that_does_not_count(
    process: Callable[[int, int], None],
) -> None:
    parts = ["a", "b", "c", "d", None, None]
    shares = []
    for rank in range(3):
        process(rank, 3)
        shares.append(processes.parts_of_this_process(parts))
    assert shares == [[("a", True), ("d", True)], [("b", True), ("d", False)], [("c", True), ("d", False)]]


def test_items_are_worked_on_by_one_process_each_and_come_in_order(
    process: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def work(item: int) -> int:
        done.append(item)
        return item * item

    monkeypatch.setattr(processes, "gather_object", lambda items: items)
    for rank, items in enumerate(([0, 3, 6], [1, 4], [2, 5])):
        process(rank, 3)
        done.clear()
        assert (
            list(processes.map_over_processes(range(7), work)) == [item * item for item in items]
            and done == items
        )
    process(0, 1)
    assert list(processes.map_over_processes(range(7), work)) == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_row_of_a_step_is_one_process_s(count: int) -> None:
    """Micro-batches of two depths: as many a process at each, and every row of every role once."""
    needs = {
        "forget": (SimpleNamespace(layer=1),),
        "retain": (SimpleNamespace(layer=None),),
        "scope": (SimpleNamespace(layer=None),),
    }
    work = {role: np.arange(1, 8) * 7 for role in needs}
    job: Any = SimpleNamespace(needs=needs, work=work, settings=SimpleNamespace(micro_tokens=40))
    step: Any = {
        role: SimpleNamespace(rows=np.arange(size))
        for role, size in (("forget", 3), ("retain", 7), ("scope", 2))
    }
    parts = gradients.micro_batches(job, step, list(needs), count)
    rounds = [parts[start : start + count] for start in range(0, len(parts), count)]
    assert len(parts) % count == 0 and all(first is not None for first, *_ in rounds)
    assert all(len({"forget" in part for part in together if part}) == 1 for together in rounds), (
        "one depth a round"
    )
    for role, draw in step.items():
        met = np.concatenate([part[role] for part in parts if part and role in part])
        assert sorted(met) == list(range(len(draw.rows)))
    assert count > 1 or None not in parts


def test_deepspeed_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="launch with FSDP2"):
        join_processes(torch.nn.Linear(1, 1))
