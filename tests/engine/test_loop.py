"""The loop: accumulation, exact resume, death at any moment, what moves and what does not, the cached
original."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import GPT2Config

from unremember.data.split import Split, make_split
from unremember.engine import checkpoint, loop, reference, stage
from unremember.engine.losses import ALTERNATE, ANSWER, PlainLoss
from unremember.engine.recipe import Recipe
from unremember.engine.samplings import Batch, Draw, PlainSampling
from unremember.engine.seams import State, Term
from unremember.engine.settings import Settings
from unremember.errors import Collapsed, ConfigError, DataError, RunError
from unremember.models.presets import fresh_model, small_llama
from unremember.registry import losses, methods
from unremember.tasks.language import LanguageTask
from unremember.tasks.protocol import Need, View
from unremember.tasks.text import Template

WORDS = [
    "river",
    "harbour",
    "baker",
    "winter",
    "lamp",
    "salt",
    "bread",
    "north",
    "painter",
    "town",
    "quiet",
    "long",
]
TEXT = "{question}\n"
GRADDIFF = Recipe((Term("forget", "ascent", 0.5), Term("retain", "nll")))
SHORT = {"epochs": 2, "batch_size": 4, "micro_tokens": 100, "lr": 2e-3, "seed": 3}


def rows(count: int, first: int, word: str = "Who") -> list[dict[str, str]]:
    """Rows of very unequal length."""
    some = [" ".join(WORDS[(first + i + k) % 12] for k in range(1 + (i * 5) % 9)) for i in range(count)]
    return [
        {"question": f"{word} is {first + i}?", "answer": text, "alternate": f"No idea {i}."}
        for i, text in enumerate(some)
    ]


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split({"forget": rows(9, 0), "retain": rows(14, 100, "Where")})


@pytest.fixture(scope="module")
def task(tokenizer: Any) -> LanguageTask:
    return LanguageTask(tokenizer, Template(TEXT), 128)


Run = Callable[..., Any]


@pytest.fixture
def run(tiny_llama: Any, task: LanguageTask, split: Split) -> Run:
    """Train a copy of the tiny model: ``run(recipe, folder, watch, setting=…)``."""

    def start(
        recipe: Recipe = GRADDIFF,
        folder: Path | None = None,
        watch: Any = None,
        model: Any = None,
        data: Split = split,
        **changes: Any,
    ) -> Any:
        made = copy.deepcopy(tiny_llama) if model is None else model
        return loop.run_recipe(
            made, task, data, recipe, Settings(**{**SHORT, **changes}), folder, watch, quiet=True
        )

    return start


def weights(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: Any, right: Any) -> bool:
    a, b = weights(left), weights(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def distance(left: Any, right: Any) -> float:
    a, b = weights(left), weights(right)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def with_seams(blend: Any = "sum", sampling: Any = "paired", selection: Any = "all") -> Recipe:
    return dataclasses.replace(GRADDIFF, blend=blend, sampling=sampling, selection=selection)


def named(part: Any) -> str:
    return part["name"] if isinstance(part, dict) else str(part)


# --- one step, however it is cut ---


@pytest.mark.parametrize("blend", ["sum", "pcgrad"])
@pytest.mark.parametrize("method", ["gradient_difference", "npo", "simnpo"])
def test_micro_batches_change_nothing(blend: str, method: str, run: Run, tiny_llama: Any) -> None:
    recipe = dataclasses.replace(methods.make(method), blend=blend)
    whole, cut = (run(recipe, batch_size=8, micro_tokens=size, lr=1e-4, max_steps=2) for size in (768, 50))
    assert distance(whole, tiny_llama) > 1e-5
    assert distance(whole, cut) < 1e-6


def test_the_log_holds_token_means_of_each_term(
    run: Run, tmp_path: Path, tiny_llama: Any, task: LanguageTask, split: Split
) -> None:
    run(folder=tmp_path, batch_size=9, micro_tokens=50, max_steps=1)
    texts = task.encode(split, "forget", ["answer"])["answer"]
    total = 0.0
    for i in range(9):
        ids = torch.from_numpy(texts.ids[texts.offsets[i] : texts.offsets[i + 1]])[None]
        labels = ids.clone()
        labels[:, : texts.starts[i]] = -100
        total += tiny_llama(input_ids=ids, labels=labels).loss.item() * texts.counts[i]
    (first,) = log(tmp_path)
    assert first["forget/ascent"] == pytest.approx(-total / texts.counts.sum(), rel=1e-5)
    assert (
        first["step"] == 1
        and first["epoch"] == 1.0
        and set(first) == {"step", "epoch", "forget/ascent", "retain/nll"}
    )


@dataclasses.dataclass(frozen=True)
class Weighted(PlainSampling):
    """A sampling of one step: five rows out of order, each with a weight of its own."""

    def steps_per_epoch(self, context: Any) -> int:
        return 1

    def apply(self, context: Any, state: State) -> tuple[Batch, State]:
        return {"forget": Draw(np.array([7, 3, 2, 8, 0]), np.array([0, 1, 2, 4, 8], dtype=np.float32))}, state


@pytest.mark.parametrize("micro_tokens", [50, 768])
def test_weights_of_a_sampling_reach_their_own_rows(
    micro_tokens: int, run: Run, tmp_path: Path, task: LanguageTask, split: Split, tiny_llama: Any
) -> None:
    """And the sum is divided by the rows of the step, never by the sum of the weights."""
    loss = {"name": "simnpo", "beta": 0.5}
    run(
        Recipe((Term("forget", loss),), sampling=Weighted()), tmp_path, micro_tokens=micro_tokens, max_steps=1
    )
    data = task.encode(split, "forget", ["answer"])
    with torch.no_grad():
        seen = task.forward(tiny_llama, {"forget": (data, np.array([7, 3, 2, 8, 0]))}, {"forget": [ANSWER]})[
            "forget"
        ]
    values, _ = losses.make(loss).apply(seen, seen, {})
    expected = (values * torch.tensor([0.0, 1, 2, 4, 8])).sum().item() / 5
    assert values.mean() > 0.01 and values.std() > 1e-3 * values.mean(), "a swap would show"
    assert log(tmp_path)[0]["forget/simnpo"] == pytest.approx(expected, rel=1e-5)


def test_forwards_share_the_tokens_of_a_step_without_padding(
    run: Run, model: Any, task: LanguageTask, split: Split
) -> None:
    tokens: list[int] = []
    model.model.register_forward_pre_hook(
        lambda _, args, given: tokens.append(given["input_ids"].numel()), with_kwargs=True
    )
    run(Recipe((Term("forget", "ascent"),)), model=model, batch_size=9, micro_tokens=100, max_steps=1)
    lengths = np.sort(task.encode(split, "forget", ["answer"])["answer"].lengths)
    share = lengths.sum() / len(tokens)
    assert sum(tokens) == lengths.sum() and share <= 100 and lengths[-1] > 2 * lengths[0]
    assert len(tokens) == -(-lengths.sum() // 100) and max(tokens) < share + lengths[-1]
    assert set(np.cumsum(tokens)) <= set(np.cumsum(lengths)), "like lengths together"


def test_a_forward_holds_one_text_at_least(run: Run, model: Any, split: Split, task: LanguageTask) -> None:
    tokens: list[int] = []
    model.model.register_forward_pre_hook(
        lambda _, args, given: tokens.append(given["input_ids"].numel()), with_kwargs=True
    )
    run(Recipe((Term("forget", "ascent"),)), model=model, batch_size=9, micro_tokens=1, max_steps=1)
    assert tokens == sorted(task.encode(split, "forget", ["answer"])["answer"].lengths)


def test_two_texts_of_a_role_have_their_own_token_means(
    run: Run, tmp_path: Path, task: LanguageTask, split: Split, tiny_llama: Any
) -> None:
    run(
        Recipe((Term("forget", "ascent"), Term("forget", {"name": "nll", "text": "alternate"}))),
        tmp_path,
        batch_size=9,
        max_steps=1,
    )
    data = task.encode(split, "forget", ["alternate"])
    with torch.no_grad():
        seen = task.forward(tiny_llama, {"forget": (data, np.arange(9))}, {"forget": [ALTERNATE]})[
            "forget"
        ].read(ALTERNATE)
    assert log(tmp_path)[0]["forget/nll"] == pytest.approx(-seen.values.mean().item(), rel=1e-5)


@pytest.mark.parametrize("blend", ["sum", "pcgrad"])
def test_weights_of_the_terms_scale_their_gradients(blend: str, run: Run) -> None:
    found: list[Tensor] = []

    def look(optimizer: Any, *_: Any) -> None:
        found.append(torch.cat([p.grad.flatten() for p in optimizer.param_groups[0]["params"]]))

    handle = register_optimizer_step_pre_hook(look)
    for gamma, alpha in ((1.0, 0.0), (0.0, 1.0), (0.25, 3.0)):
        run(
            Recipe((Term("forget", "nll", gamma), Term("retain", "nll", alpha)), blend), max_steps=1, clip=0.0
        )
    handle.remove()
    forget, retain, both = found
    assert forget @ retain > 0, "no conflict: nothing to project"
    assert torch.allclose(both, 0.25 * forget + 3.0 * retain, atol=1e-6) and forget.norm() > 0.1


def test_the_first_step_reads_the_original(run: Run, tmp_path: Path) -> None:
    """At the start the model is the original: any mix-up of rows between the two would show."""
    for name in ("npo", "dpo"):
        run(methods.make(name), tmp_path / name, batch_size=9, micro_tokens=50, max_steps=1)
        assert log(tmp_path / name)[0][f"forget/{name}"] == pytest.approx(20 * math.log(2), rel=1e-4)
    run(methods.make("rmu"), tmp_path / "rmu", micro_tokens=50, max_steps=2, lr=1e-2)
    first, second = (line["retain/hold"] for line in log(tmp_path / "rmu"))
    assert first < 1e-12 < second


@torch.no_grad()
def level(model: Any, task: LanguageTask, split: Split, role: str) -> float:
    """Token-mean loss of the answers of a role."""
    data = task.encode(split, role, ["answer"])
    return (
        -task.forward(model, {role: (data, np.arange(len(split[role])))}, {role: [ANSWER]})[role]
        .read(ANSWER)
        .values.mean()
        .item()
    )


@pytest.fixture(scope="module")
def learned(tiny_llama: Any, task: LanguageTask, split: Split) -> Any:
    """The tiny model after it learned both roles."""
    recipe = Recipe((Term("forget", "nll"), Term("retain", "nll")), sampling="cyclic")
    return loop.run_recipe(
        copy.deepcopy(tiny_llama), task, split, recipe, Settings(epochs=40, batch_size=8, lr=1e-2), quiet=True
    )


@pytest.mark.parametrize(
    "method",
    [
        "npo",
        "dpo",
        "gradient_difference",
        {"name": "simnpo", "gamma": 1.0},
        {"name": "rmu", "coefficient": 10.0, "alpha": 5.0},
    ],
    ids=named,
)
def test_methods_forget_what_they_shall_and_keep_the_rest(
    method: Any, run: Run, task: LanguageTask, split: Split, learned: Any
) -> None:
    before, kept = (level(learned, task, split, role) for role in ("forget", "retain"))
    assert max(before, kept) < 1.5
    done = run(methods.make(method), model=copy.deepcopy(learned), epochs=16, lr=4e-3)
    rose, lost = level(done, task, split, "forget") - before, level(done, task, split, "retain") - kept
    assert rose > 0.4 and lost < 0.7 * rose


# --- the same run again, stopped anywhere ---


def test_the_seed_decides_everything(run: Run) -> None:
    first = run()
    assert same(first, run()) and not same(first, run(seed=4))


def stop_after_an_epoch(model: Any, step: int) -> None:
    """An epoch has 3 steps paired, 4 cyclic."""
    if step in (3, 4):
        raise KeyboardInterrupt


SEAMS = [
    (b, s, c)
    for b in ("sum", "pcgrad")
    for s in ("paired", "cyclic")
    for c in ("all", {"name": "lora", "rank": 2, "dropout": 0.2})
]


@pytest.mark.parametrize(("blend", "sampling", "selection"), SEAMS, ids=named)
def test_a_stopped_run_goes_on_exactly(
    blend: str, sampling: str, selection: Any, run: Run, tmp_path: Path
) -> None:
    recipe = with_seams(blend, sampling, selection)
    undisturbed = run(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "cut", stop_after_an_epoch)
    done = len(log(tmp_path / "cut"))
    assert 0 < done < len(log(tmp_path / "whole"))
    steps: list[int] = []
    again = run(recipe, tmp_path / "cut", lambda model, step: steps.append(step))
    assert steps in ([3, 6], [4, 8]), (
        "the first epoch is not run again, only looked at: the stop came as it was"
    )
    assert same(undisturbed, again)
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupt_inside_a_step_loses_and_repeats_nothing(
    after: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(with_seams("pcgrad"), tmp_path / "whole")
    whole, seen = stage.update, []

    def update(*arguments: Any) -> Any:
        """Ctrl-C at step 4, before its work or after its weights moved."""
        seen.append(None)
        if len(seen) == 4 and not after:
            signal.raise_signal(signal.SIGINT)
        figures = whole(*arguments)
        if len(seen) == 4 and after:
            signal.raise_signal(signal.SIGINT)
        return figures

    with monkeypatch.context() as patch:
        patch.setattr(stage, "update", update)
        with pytest.raises(KeyboardInterrupt):
            run(with_seams("pcgrad"), tmp_path / "cut")
    assert checkpoint.latest_checkpoint(tmp_path / "cut" / "checkpoint")["position"] in (3, 4)
    assert same(undisturbed, run(with_seams("pcgrad"), tmp_path / "cut"))
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


@pytest.mark.parametrize("method", ["npo", "rmu"])
def test_methods_with_state_or_reference_go_on_exactly(method: str, run: Run, tmp_path: Path) -> None:
    recipe = methods.make(method)
    undisturbed = run(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "cut", stop_after_an_epoch)
    assert same(undisturbed, run(recipe, tmp_path / "cut"))
    assert log(tmp_path / "cut") == log(tmp_path / "whole")


def killed(work: Callable[[], Any]) -> None:
    """Run ``work`` in a forked process, which must end by SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "the child ended by itself"


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(call: int, whole: Callable[..., Any]) -> Callable[..., Any]:
    seen = [0]

    def called(*arguments: Any, **named: Any) -> Any:
        seen[0] += 1
        if seen[0] == call:
            die()
        return whole(*arguments, **named)

    return called


@pytest.mark.parametrize(
    "place", ["in a step", "while a checkpoint is written", "before a checkpoint takes its name"]
)
def test_a_killed_run_goes_on_exactly(
    place: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(folder=tmp_path / "whole", checkpoint_seconds=0)

    def work() -> None:
        if place == "in a step":
            monkeypatch.setattr(stage, "update", kill_at(5, stage.update))
        elif place == "while a checkpoint is written":
            monkeypatch.setattr(checkpoint, "save_file", kill_at(3, checkpoint.save_file))
        else:
            monkeypatch.setattr(checkpoint.os, "replace", kill_at(4, os.replace))
        run(folder=tmp_path / "cut", checkpoint_seconds=0)

    killed(work)
    assert 0 < len(log(tmp_path / "cut")) < 6
    assert same(undisturbed, run(folder=tmp_path / "cut", checkpoint_seconds=0))
    assert log(tmp_path / "cut") == log(tmp_path / "whole")


def test_half_a_line_in_the_log_is_dropped(run: Run, tmp_path: Path) -> None:
    undisturbed = run(folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path / "cut", watch=stop_after_an_epoch)
    with (tmp_path / "cut" / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "epo')
    assert same(undisturbed, run(folder=tmp_path / "cut")) and log(tmp_path / "cut") == log(
        tmp_path / "whole"
    )


@pytest.mark.parametrize("old", ["0", "\n", "}", "step"])
def test_a_corrupt_log_is_one_line_and_the_run_goes_on_without_it(old: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, watch=stop_after_an_epoch)
    file = tmp_path / "log.jsonl"
    file.write_text(file.read_text().replace(old, "1" * len(old), 1))
    with pytest.raises(
        RunError, match=r"log\.jsonl is corrupt, .*: delete it, and the same command carries on"
    ):
        run(folder=tmp_path)
    file.unlink()
    run(folder=tmp_path)
    assert [row["step"] for row in log(tmp_path)] == [4, 5, 6]


def test_a_resumed_run_logs_each_step_once(run: Run, tmp_path: Path) -> None:
    """A process that was killed logged steps after its last checkpoint."""
    run(folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path / "cut", watch=stop_after_an_epoch)
    later = (tmp_path / "whole" / "log.jsonl").read_text().splitlines(keepends=True)[3:5]
    with (tmp_path / "cut" / "log.jsonl").open("a") as file:
        file.writelines(later)
    run(folder=tmp_path / "cut")
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def test_a_finished_run_does_nothing_more(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(folder=tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    monkeypatch.setattr(stage, "update", die)
    assert same(first, run(folder=tmp_path)) and (tmp_path / "log.jsonl").read_bytes() == before


def test_one_checkpoint_is_kept(run: Run, tmp_path: Path) -> None:
    run(folder=tmp_path, checkpoint_seconds=0)
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == ["000000006"]
    flat = checkpoint.latest_checkpoint(tmp_path / "checkpoint")
    assert flat["position"] == 6 and flat["phases/0/states/sampling/position"] == 6


# --- a run that fails ---


@dataclasses.dataclass(frozen=True)
class Turns(PlainLoss):
    """Gives ``value`` times the answer's log-probability from call ``at`` on."""

    value: float = math.nan
    at: int = 3

    def init(self, context: Any) -> State:
        return {"calls": 0}

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        calls = state["calls"] + 1
        return view.read(ANSWER).sum() * (self.value if calls >= self.at else 1.0), {"calls": calls}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(value: float, run: Run, tmp_path: Path) -> None:
    with pytest.raises(Collapsed, match=r"not finite at step 3 \(forget/turns = .*\): lower lr") as caught:
        run(Recipe((Term("forget", Turns(value)),)), tmp_path, batch_size=1, checkpoint_seconds=0)
    assert "\n" not in str(caught.value)
    flat = checkpoint.latest_checkpoint(tmp_path / "checkpoint")
    assert flat["position"] == 2 == len(log(tmp_path)) and flat["phases/0/states/loss/0/calls"] == 2
    assert all(torch.isfinite(value).all() for value in checkpoint.entries_under(flat, "weights").values())


@dataclasses.dataclass(frozen=True)
class Cliff(PlainLoss):
    """A finite value whose gradient is not."""

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        return (view.read(ANSWER).sum() * 0).abs().sqrt(), state


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_ends_the_run(clip: float, run: Run, tmp_path: Path) -> None:
    with pytest.raises(Collapsed):
        run(Recipe((Term("forget", Cliff()),)), tmp_path, max_steps=1, clip=clip)


TINY = torch.tensor(1e-310, dtype=torch.float64)
"""Below the least normal number of float64."""


@dataclasses.dataclass(frozen=True)
class Below(PlainLoss):
    """Ascent during which a number too small to be normal must be nothing."""

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        assert (TINY * 1.0).item() == 0
        return view.read(ANSWER).sum(), state


def test_numbers_too_small_to_be_normal_are_nothing_in_a_step_and_only_there(run: Run) -> None:
    around: list[float] = []
    run(
        Recipe((Term("forget", Below()),)),
        max_steps=2,
        watch=lambda model, step: around.append((TINY * 1.0).item()),
    )
    assert around and 0 not in around and (TINY * 1.0).item() > 0


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_line_and_costs_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(folder=tmp_path / "whole")
    seen = [0]
    whole = checkpoint.save_file

    def third_fails(*arguments: Any) -> None:
        seen[0] += 1
        return full() if seen[0] == 3 else whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", third_fails)
        with pytest.raises(RunError, match=r"the disk is full; .* MB free.*run the same command") as caught:
            run(folder=tmp_path / "cut", checkpoint_seconds=0)
    assert "\n" not in str(caught.value)
    assert checkpoint.latest_checkpoint(tmp_path / "cut" / "checkpoint")["position"] == 2
    assert same(undisturbed, run(folder=tmp_path / "cut"))


def test_a_full_disk_at_the_reference_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference.np, "save", full)
    with pytest.raises(RunError, match="the disk is full"):
        run(methods.make("npo"), tmp_path)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_corrupt_checkpoint_is_one_line(name: str, run: Run, tmp_path: Path) -> None:
    run(folder=tmp_path, max_steps=2)
    broken = tmp_path / "checkpoint" / "000000002" / name
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(RunError, match=r"checkpoint .*000000002 is corrupt .*delete that folder") as caught:
        run(folder=tmp_path, max_steps=2)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_selection_is_refused(run: Run, tmp_path: Path) -> None:
    run(with_seams(selection={"name": "layers", "layers": [0]}), tmp_path, max_steps=1)
    with pytest.raises(DataError, match="another selection: choose another run folder"):
        run(folder=tmp_path, max_steps=1)


def test_a_checkpoint_of_a_wider_model_is_refused(run: Run, tmp_path: Path, tokenizer: Any) -> None:
    run(folder=tmp_path, max_steps=1)
    with pytest.raises(DataError, match="another model"):
        run(folder=tmp_path, max_steps=1, model=small_llama(len(tokenizer), hidden=48, layers=2, heads=2))


@pytest.mark.parametrize("change", ["method", "seed", "rows"])
def test_a_checkpoint_of_another_run_is_refused(change: str, run: Run, tmp_path: Path, split: Split) -> None:
    """Else the finished weights of one method would be handed back as another's."""
    run(folder=tmp_path, max_steps=1)
    others = {
        "method": {"recipe": methods.make("simnpo")},
        "seed": {"seed": 9},
        "rows": {"data": split.with_rows(forget=rows(9, 50))},
    }
    with pytest.raises(DataError):
        run(folder=tmp_path, max_steps=1, **others[change])


def test_a_checkpoint_knows_the_second_model_that_is_read(run: Run, reinforced: str, tmp_path: Path) -> None:
    """By its weights: elsewhere it is the same, with others it is another run."""
    recipe = methods.make({"name": "whp", "reinforced": str(shutil.copytree(reinforced, tmp_path / "first"))})
    run(recipe, tmp_path / "run", max_steps=2)
    moved = methods.make(
        {"name": "whp", "reinforced": str(shutil.copytree(reinforced, tmp_path / "second" / "model").parent)}
    )
    run(moved, tmp_path / "run", max_steps=2)
    weights_file = tmp_path / "second" / "model" / "model.safetensors"
    save_file(
        {name: value * 1.5 for name, value in load_file(weights_file).items()}, weights_file, {"format": "pt"}
    )
    with pytest.raises(DataError, match="written with another model"):
        run(moved, tmp_path / "run", max_steps=2)


def test_a_role_that_is_missing_is_refused(run: Run, split: Split) -> None:
    with pytest.raises(DataError, match="no role 'retain' in data"):
        run(data=dataclasses.replace(split, roles={"forget": split["forget"]}))


# --- what moves ---


@pytest.mark.parametrize(
    ("selection", "moving"),
    [
        ("all", r""),
        ({"name": "layers", "layers": [0]}, r"layers\.0\."),
        ({"name": "layers", "layers": [-1], "modules": "mlp"}, r"layers\.1\.mlp"),
        ({"name": "lora", "rank": 2}, r"layers\.\d\..*proj"),
    ],
    ids=str,
)
@pytest.mark.parametrize("blend", ["sum", "pcgrad"])
def test_nothing_but_the_selection_moves(
    selection: Any, moving: str, blend: str, run: Run, tiny_llama: Any
) -> None:
    before, after = weights(tiny_llama), weights(run(with_seams(blend, selection=selection)))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if re.search(moving, name)}


def test_lora_trains_adapters_alone_and_merges_them(run: Run, tiny_llama: Any) -> None:
    seen: list[dict[str, Tensor]] = []
    done = run(
        with_seams(selection={"name": "lora", "rank": 2}), watch=lambda model, _: seen.append(weights(model))
    )
    base = {name.replace(".base_layer", ""): value for name, value in seen[-1].items() if "lora_" not in name}
    assert all(torch.equal(value, base[name]) for name, value in weights(tiny_llama).items())
    assert type(done) is type(tiny_llama) and list(done.state_dict()) == list(tiny_llama.state_dict())
    name = "model.layers.0.mlp.up_proj"
    delta = 8.0 * seen[-1][f"{name}.lora_B.default.weight"] @ seen[-1][f"{name}.lora_A.default.weight"]
    merged = weights(done)[f"{name}.weight"] - weights(tiny_llama)[f"{name}.weight"]
    assert delta.abs().max() > 1e-4 and torch.allclose(merged, delta, atol=1e-6), "alpha 16 over rank 2"


def test_a_layer_or_module_that_is_not_there_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"the model has 2 blocks: layers \[2, -3\] are not among 0..1"):
        run(with_seams(selection={"name": "layers", "layers": [2, 0, -3]}))
    with pytest.raises(ConfigError, match=r"no weight of layers .* matches 'donw_proj'"):
        run(with_seams(selection={"name": "layers", "layers": [0], "modules": "donw_proj"}))


def test_the_model_comes_back_in_eval_mode(run: Run) -> None:
    modes: list[bool] = []
    done = run(watch=lambda model, _: modes.append(model.training))
    assert modes == [False, False] and not any(module.training for module in done.modules())


# --- settings ---


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"warmup": 1.0, "schedule": "linear"},
            [0.25, 0.5, 0.75, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125],
        ),
        ({"warmup": 0.5, "schedule": "constant"}, [0.5, 1, *[1] * 10]),
        ({"warmup": 0.0, "schedule": "linear"}, [1 - i / 12 for i in range(12)]),
    ],
)
def test_rates_by_hand(changes: Mapping[str, Any], expected: list[float]) -> None:
    settings = Settings(lr=2e-3, **changes)
    assert [settings.rate(i, 12, 4) / 2e-3 for i in range(12)] == pytest.approx(expected)


@pytest.mark.parametrize("changes", [{"lr": 0.0}, {"epochs": 0}, {"batch_size": -1}, {"micro_tokens": 0}])
def test_settings_out_of_range_are_refused(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(changes))} must be above 0"):
        Settings(**changes)


@pytest.mark.parametrize(
    "changes", [{"schedule": "cosine"}, {"precision": "fp16"}, {"max_steps": -1}, {"clip": -1.0}], ids=str
)
def test_settings_that_would_silently_do_something_else_are_refused(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings(**changes)


@pytest.fixture
def steps() -> Iterator[list[tuple[float, float]]]:
    """(learning rate, gradient norm) at each optimiser step."""
    seen: list[tuple[float, float]] = []

    def look(optimizer: Any, *_: Any) -> None:
        (group,) = optimizer.param_groups
        norm = torch.stack([p.grad.norm() for p in group["params"] if p.grad is not None]).norm()
        seen.append((group["lr"], norm.item()))

    handle = register_optimizer_step_pre_hook(look)
    yield seen
    handle.remove()


def test_the_optimiser_gets_the_schedule_and_clipped_gradients(
    run: Run, steps: list[tuple[float, float]]
) -> None:
    run(clip=0.0)
    free = [norm for _, norm in steps]
    assert [rate for rate, _ in steps] == pytest.approx(
        [2e-3 * f for f in (1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3)]
    )
    steps.clear()
    run(clip=0.01)
    assert min(free) > 0.05 and [norm for _, norm in steps] == pytest.approx([0.01] * 6, rel=1e-3)
    steps.clear()
    run(clip=1e6, max_steps=2)
    assert [norm for _, norm in steps] == pytest.approx(free[:2], rel=1e-4)


def test_max_steps_and_epochs_count_steps(run: Run, tmp_path: Path) -> None:
    run(folder=tmp_path / "epochs", epochs=1)
    run(folder=tmp_path / "steps", epochs=1, max_steps=5)
    run(with_seams(sampling="cyclic"), tmp_path / "cyclic", epochs=1)
    assert [len(log(tmp_path / name)) for name in ("epochs", "steps", "cyclic")] == [3, 5, 4]


@pytest.mark.parametrize(
    "selection", ["all", {"name": "layers", "layers": [0]}, {"name": "lora", "rank": 2}], ids=named
)
def test_gradient_checkpointing_changes_nothing(selection: Any, run: Run, tiny_llama: Any) -> None:
    plain, saving = (
        run(with_seams(selection=selection), lr=1e-4, gradient_checkpointing=on) for on in (False, True)
    )
    assert distance(plain, tiny_llama) > 1e-6 and distance(plain, saving) < 1e-6


@pytest.mark.parametrize(("on", "calls"), [(False, 1), (True, 2)])
def test_gradient_checkpointing_runs_blocks_again(on: bool, calls: int, run: Run, model: Any) -> None:
    seen: list[None] = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: seen.append(None))
    run(Recipe((Term("forget", "nll"),)), model=model, batch_size=1, max_steps=1, gradient_checkpointing=on)
    assert len(seen) == calls


def test_gradient_checkpointing_of_a_forward_that_stops_early(run: Run, tiny_llama: Any) -> None:
    plain, saving = (
        run(methods.make({"name": "rmu", "layer": 0}), lr=1e-4, gradient_checkpointing=on)
        for on in (False, True)
    )
    assert distance(plain, tiny_llama) > 1e-6 and distance(plain, saving) < 1e-6


def test_bf16_is_close_but_not_the_same(run: Run, tmp_path: Path) -> None:
    full_precision, half = (
        run(folder=tmp_path / "fp32", lr=1e-4),
        run(folder=tmp_path / "bf16", lr=1e-4, precision="bf16"),
    )
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert 0 < distance(full_precision, half) < 1e-3
    for plain, rounded in zip(log(tmp_path / "fp32"), log(tmp_path / "bf16")):
        assert plain["retain/nll"] != rounded["retain/nll"] and plain["retain/nll"] == pytest.approx(
            rounded["retain/nll"], rel=0.02
        )


# --- the frozen original, once ---


@pytest.fixture
def read_of_original(tiny_llama: Any) -> Iterator[list[int]]:
    """A copy's forwards without gradients: the texts in each. (The tests train
    ``read_of_original.model``.)"""
    seen: list[int] = []
    model = copy.deepcopy(tiny_llama)

    def look(_: Any, __: Any, given: Any) -> None:
        if not torch.is_grad_enabled():
            seen.append(len(given["packed"]))

    handle = model.model.register_forward_pre_hook(look, with_kwargs=True)
    yield [seen, model]  # type: ignore[misc]
    handle.remove()


def test_the_original_is_read_once_a_row(
    read_of_original: Any, run: Run, tmp_path: Path, tiny_llama: Any
) -> None:
    seen, model = read_of_original
    first = weights(run(methods.make("npo"), tmp_path, model=model))
    assert sum(seen) == 9, "each forget row once; retain rows have no reference"
    seen.clear()
    model.load_state_dict(tiny_llama.state_dict())
    (tmp_path / "checkpoint").rename(tmp_path / "set aside")
    again = run(methods.make("npo"), tmp_path, model=model)
    assert seen == [] and all(torch.equal(first[name], value) for name, value in weights(again).items())


def test_only_drawn_rows_are_read(read_of_original: Any, run: Run, split: Split) -> None:
    seen, model = read_of_original
    run(methods.make("dpo"), model=model, max_steps=1)
    assert sum(seen) == 2 * 4, "answer and alternate of one step's forget rows"


def test_other_weights_rows_or_templates_are_read_anew(
    read_of_original: Any, run: Run, tmp_path: Path, split: Split, task: LanguageTask
) -> None:
    seen, model = read_of_original
    run(methods.make("npo"), tmp_path, model=model)
    (tmp_path / "checkpoint").rename(tmp_path / "set aside")
    seen.clear()
    run(methods.make("npo"), tmp_path, model=model, data=split)
    assert sum(seen) == 9, "its weights moved: another digest"
    (tmp_path / "checkpoint").rename(tmp_path / "set aside 2")
    changed = split.with_rows(
        forget=[*split["forget"].rows[:-1], {**split["forget"].rows[-1], "answer": "Another."}]
    )
    seen.clear()
    run(methods.make("npo"), tmp_path, model=model, data=changed)
    assert sum(seen) == 9
    seen.clear()
    loop.run_recipe(
        model,
        LanguageTask(task.tokenizer, Template("{question}?\n")),
        split,
        methods.make("npo"),
        Settings(max_steps=3),
        tmp_path / "x",
    )
    assert sum(seen) == 9


def test_the_original_is_read_without_dropout(
    task: LanguageTask, split: Split, tokenizer: Any, tmp_path: Path
) -> None:
    model = fresh_model(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=128, resid_pdrop=0.5
        ),
        0,
    )
    data, every = task.encode(split, "forget", ["answer"]), np.arange(9)
    made = reference.cache_reference(model.train(), task, data, "forget", ANSWER, every, tmp_path, "key")
    with torch.no_grad():
        direct = task.forward(model.eval(), {"forget": (data, every)}, {"forget": [ANSWER]})["forget"].read(
            ANSWER
        )
    assert np.allclose(made.values, direct.values.numpy(), atol=1e-5)


@pytest.mark.parametrize("need", [ANSWER, ALTERNATE, Need("answer", "hidden", 0)])
def test_cached_values_equal_direct_ones(
    need: Need, tiny_llama: Any, task: LanguageTask, split: Split, tmp_path: Path
) -> None:
    data = task.encode(split, "forget", ["answer", "alternate"])
    rows_read = np.array([1, 2, 5, 7, 8])
    made = reference.cache_reference(
        tiny_llama, task, data, "forget", need, rows_read, tmp_path, "key", batch_rows=2
    )
    again = reference.cache_reference(None, task, data, "forget", need, rows_read, tmp_path, "key")
    assert isinstance(again.values, np.memmap) and np.array_equal(made.values, again.values)
    drawn = np.array([7, 1, 8, 1])
    found = reference.reference_views({"forget": {need: again}}, {"forget": drawn}, torch.device("cpu"))[
        "forget"
    ].read(need)
    with torch.no_grad():
        direct = task.forward(tiny_llama, {"forget": (data, drawn)}, {"forget": [need]})["forget"].read(need)
    assert torch.equal(found.counts, direct.counts) and torch.allclose(found.values, direct.values, atol=1e-5)
    assert len(made.values) == data[need.text].counts[rows_read].sum()
