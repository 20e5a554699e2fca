"""Phases: methods in turn on one model, all with the same original as reference, each with its own
optimiser."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from unremember.data.split import Split, make_split
from unremember.engine import checkpoint, loop
from unremember.engine.losses import PlainLoss
from unremember.engine.optimizers import SGD
from unremember.engine.probe import GradientProbe
from unremember.engine.recipe import Phases, Recipe
from unremember.engine.seams import MatchedForgetting, Phase, State, Term
from unremember.engine.selections import only
from unremember.engine.settings import Run, Settings
from unremember.errors import ConfigError, DataError
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.protocol import Need, View

ASCEND = Recipe((Term("forget", "ascent"),))
REPAIR = Recipe((Term("retain", "nll"),))
SETTINGS = Settings(epochs=2, batch_size=4, lr=1e-3, warmup=0.0, checkpoint_seconds=0)
Start = Callable[[], Artefact]


@pytest.fixture(scope="module")
def split() -> Split:
    def rows(count: int, word: str) -> list[dict[str, str]]:
        return [
            {"question": f"{word} is {i}?", "answer": "the long river " * (1 + i % 3)} for i in range(count)
        ]

    return make_split({"forget": rows(8, "Who"), "retain": rows(12, "Where")})


@pytest.fixture
def start(tiny_llama: Any, tokenizer: Any) -> Start:
    return lambda: Artefact(copy.deepcopy(tiny_llama), LanguageTask(tokenizer))


def run(
    method: Any,
    artefact: Artefact,
    split: Split,
    folder: Path | None = None,
    watch: Any = None,
    **changes: Any,
) -> Artefact:
    settings = dataclasses.replace(SETTINGS, **changes)
    return method.run(artefact, split, Run(settings, folder, watch, 1, quiet=True))


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: Artefact, other: Artefact) -> bool:
    return one.weights == other.weights


def test_a_single_phase_is_the_recipe_itself(start: Start, split: Split) -> None:
    assert same(run(Phases((Phase(ASCEND),)), start(), split), run(ASCEND, start(), split))


def test_phases_take_turns_for_as_long_as_they_say(start: Start, split: Split, tmp_path: Path) -> None:
    """Two steps of the one and an epoch (three batches) of the other, twice over."""
    method = Phases((Phase(ASCEND, until=2), Phase(REPAIR, until="epoch")), rounds=2)
    run(method, start(), split, tmp_path)
    assert [row["phase"] for row in log(tmp_path)] == [0, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    assert [row["step"] for row in log(tmp_path)] == list(range(1, 11))
    assert all(("forget/ascent" in row) == (row["phase"] == 0) for row in log(tmp_path))


def test_rounds_may_follow_the_settings(start: Start, split: Split, tmp_path: Path) -> None:
    """Two epochs of two batches in the first phase, a step of which is followed by one of the second."""
    run(Phases((Phase(ASCEND, until=1), Phase(REPAIR, until=1)), rounds=None), start(), split, tmp_path)
    assert [row["phase"] for row in log(tmp_path)] == [0, 1] * 4


@dataclasses.dataclass(frozen=True)
class Counting:
    """Every weight moves; ``counts`` keeps how many weights could be read when the selection was applied."""

    counts: list[int] = dataclasses.field(default_factory=list)

    def apply(self, context: Any) -> Any:
        self.counts.append(len(context.probe.weights))
        return only(context.model, [name for name, _ in context.model.named_parameters()])


def test_a_selection_sees_the_model_as_it_was_given(start: Start, split: Split) -> None:
    """And not what the selection of an earlier phase froze."""
    artefact, second = start(), Counting()
    narrow = dataclasses.replace(ASCEND, selection={"name": "layers", "layers": [0]})
    run(
        Phases((Phase(narrow, until=1), Phase(dataclasses.replace(REPAIR, selection=second), until=1))),
        artefact,
        split,
    )
    assert second.counts == [len(list(artefact.model.parameters()))]


def test_a_setting_of_a_phase_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'leraning_rate' of a phase"):
        Phase(ASCEND, settings={"leraning_rate": 1e-3})


def test_two_phases_are_two_runs_one_after_the_other(start: Start, split: Split) -> None:
    """With no optimiser that remembers, and where neither reads a reference, nothing else joins them."""
    plain = SGD(momentum=0.0)
    first, second = (dataclasses.replace(recipe, optimizer=plain) for recipe in (ASCEND, REPAIR))
    together = run(
        Phases((Phase(first, until=2), Phase(second, until=2))), start(), split, schedule="constant"
    )
    halves = run(
        second,
        run(first, start(), split, max_steps=2, schedule="constant"),
        split,
        max_steps=2,
        schedule="constant",
    )
    for a, b in zip(together.model.parameters(), halves.model.parameters()):
        assert torch.allclose(a, b, atol=1e-7)
    assert not same(together, start())


def test_alternating_phases_keep_their_own_optimisers(start: Start, split: Split) -> None:
    """Adam's moments are not shared: one step each, by hand with two optimisers of torch."""
    method = Phases((Phase(ASCEND, until=1), Phase(REPAIR, until=1)), rounds=3)
    done = run(method, start(), split, schedule="constant", clip=0.0, weight_decay=0.0)
    artefact = start()
    model, task = artefact.model, artefact.task
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0) for _ in range(2)]
    jobs = [loop.prepare(model, task, split, phase, SETTINGS, Path("unused"), 3) for phase in method.phases]
    states = [job.sampling.init(job.context) for job in jobs]
    for _ in range(3):
        for i, (role, loss) in enumerate((("forget", "ascent"), ("retain", "nll"))):
            batch, states[i] = jobs[i].sampling.apply(jobs[i].context, states[i])
            data = task.encode(split, role, ["answer"])
            view = task.forward(model, {role: (data, batch[role].rows)}, {role: [Need("answer")]})[role]
            logprobs = view.read(Need("answer"))
            objective = (1.0 if loss == "ascent" else -1.0) * logprobs.values.sum() / len(logprobs.values)
            optimizers[i].zero_grad()
            objective.backward()
            optimizers[i].step()
    for a, b in zip(done.model.parameters(), model.parameters()):
        assert torch.allclose(a, b, atol=2e-6)


@dataclasses.dataclass(frozen=True)
class Drift(PlainLoss):
    """The log-probability that the original gave each answer: it must not follow the model."""

    needs: ClassVar[tuple[Need, ...]] = (Need("answer"),)
    reference_needs: ClassVar[tuple[Need, ...]] = (Need("answer"),)

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        before = reference.read(Need("answer")).sum()
        return 0 * view.read(Need("answer")).sum() + before, state


def test_every_phase_reads_the_same_original(start: Start, split: Split, tmp_path: Path) -> None:
    """After the ascent the model gives the answers less chance; the second phase still reads the first
    one's reference."""
    artefact = start()
    rows = np.arange(len(split["retain"]))
    probe = GradientProbe(artefact.model, artefact.task, split)
    original = -probe.losses("retain", rows)
    method = Phases((Phase(ASCEND, until=4), Phase(Recipe((Term("retain", Drift()),)), until=1)))
    done = run(method, artefact, split, tmp_path, lr=1e-2, batch_size=12)
    after = -GradientProbe(done.model, done.task, split).losses("retain", rows)
    counts = done.task.sizes(done.task.encode(split, "retain", ["answer"]), "answer")[1]
    assert abs(after - original).max() > 0.5
    assert log(tmp_path)[-1]["retain/drift"] == pytest.approx(float((original * counts).mean()), rel=1e-4)


def test_a_phase_ends_at_matched_forgetting(start: Start, split: Split, tmp_path: Path) -> None:
    """It stops at the first evaluation at which the score is reached, and the next phase runs from there."""
    rows = np.arange(len(split["forget"]))

    def score(model: Any, artefact: Artefact) -> float:
        return float(np.exp(-GradientProbe(model, artefact.task, split).losses("forget", rows)).mean())

    artefact, scores = start(), []
    target = 0.7 * score(artefact.model, artefact)
    until = MatchedForgetting(target, every=2)
    method = Phases((Phase(ASCEND, until), Phase(REPAIR, until=1)))

    def watch(model: Any, step: int) -> None:
        scores.append(score(model, artefact))

    run(method, artefact, split, tmp_path, watch, epochs=40, lr=3e-4, schedule="constant")
    phases = [row["phase"] for row in log(tmp_path)]
    steps = phases.count(0)
    assert phases == [0] * steps + [1] and steps % 2 == 0 and 2 < steps < 80
    assert scores[steps - 1] <= target < scores[steps - 3]


@pytest.mark.parametrize("stopped_at", [1, 3, 4])
def test_a_stopped_run_of_phases_goes_on_exactly(
    stopped_at: int, start: Start, split: Split, tmp_path: Path
) -> None:
    """In the first phase, at the change, in the second round: weights, optimisers, order and log are an
    undisturbed run's."""
    method = Phases((Phase(ASCEND, until=2), Phase(REPAIR, until=1)), rounds=2)

    def stop(model: Any, step: int) -> None:
        if step == stopped_at:
            raise KeyboardInterrupt

    undisturbed = run(method, start(), split, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(method, start(), split, tmp_path / "cut", stop)
    assert checkpoint.latest_checkpoint(tmp_path / "cut" / "checkpoint")["position"] == stopped_at
    assert same(undisturbed, run(method, start(), split, tmp_path / "cut"))
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def test_a_run_of_other_phases_is_not_carried_on(start: Start, split: Split, tmp_path: Path) -> None:
    run(Phases((Phase(ASCEND, until=2), Phase(REPAIR, until=1))), start(), split, tmp_path)
    with pytest.raises(DataError, match="another"):
        run(Phases((Phase(ASCEND, until=1), Phase(REPAIR, until=1))), start(), split, tmp_path)


def test_each_phase_moves_its_own_selection(start: Start, split: Split) -> None:
    first = dataclasses.replace(ASCEND, selection={"name": "layers", "layers": [0]})
    second = dataclasses.replace(REPAIR, selection={"name": "layers", "layers": [1]})
    done, before = run(Phases((Phase(first, until=1), Phase(second, until=1))), start(), split), start()
    moved = {
        name
        for (name, a), (_, b) in zip(done.model.named_parameters(), before.model.named_parameters())
        if not torch.equal(a, b)
    }
    assert moved and all(".layers.0." in name or ".layers.1." in name for name in moved)
    assert any(".layers.0." in name for name in moved) and any(".layers.1." in name for name in moved)


def test_phases_have_settings_of_their_own(start: Start, split: Split) -> None:
    """A rate of next to nothing moves next to nothing."""
    still = {"lr": 1e-12, "weight_decay": 0.0}
    done, alone = (
        run(Phases((Phase(ASCEND, until=2), Phase(REPAIR, until=2, settings=settings))), start(), split)
        for settings in ({}, still)
    )
    first = run(Phases((Phase(ASCEND, until=2),)), start(), split)
    difference = [
        max(
            float((a - b).detach().abs().max())
            for a, b in zip(one.model.parameters(), first.model.parameters())
        )
        for one in (alone, done)
    ]
    assert difference[0] < 1e-8 < 1e-4 < difference[1]


def test_adapters_cannot_stand_in_one_of_several_phases(start: Start, split: Split) -> None:
    adapters = dataclasses.replace(REPAIR, selection="lora")
    with pytest.raises(ConfigError, match="none of them can add adapters"):
        run(Phases((Phase(ASCEND, until=1), Phase(adapters, until=1))), start(), split)


@pytest.mark.parametrize("seam", ["blend", "sampling", "selection", "retain_loss"])
def test_parts_of_phases_are_not_overridden(seam: str) -> None:
    with pytest.raises(ConfigError, match=f"{seam} cannot be replaced here: a method of several phases"):
        Phases((Phase(ASCEND),)).override(**{seam: "sum"})
