"""What a seam may add to a run: a penalty, a proximal step, adapters that stay, a loss that reads the
model, SGD."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unremember import api
from unremember.data.split import Split, make_split
from unremember.engine import checkpoint
from unremember.engine.losses import ANSWER, PlainLoss
from unremember.engine.optimizers import SGD, AdamW, Milestones
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Context, Selected, State, Term
from unremember.engine.selections.all import All
from unremember.engine.selections.lora import LoRA
from unremember.engine.settings import Run, Settings
from unremember.errors import ModelError
from unremember.registry import selections
from unremember.tasks.artefact import Artefact
from unremember.tasks.image import ImageTask
from unremember.tasks.language import LanguageTask
from unremember.tasks.protocol import Need, View

INPUTS, LABELS = torch.tensor([[0.5], [-1.0], [2.0], [1.5]]), torch.tensor([0, 1, 1, 0])
POINTS = make_split({"forget": [{"input": [float(x)], "label": int(y)} for x, y in zip(INPUTS, LABELS)]})
LR = 0.1


def two_weights() -> nn.Module:
    """A classifier of one input and two weights."""
    net = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.8], [-0.3]]))
    return net


def gradient(weight: Tensor) -> Tensor:
    """Of the mean cross-entropy of all points."""
    weight = weight.detach().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(INPUTS @ weight.T, LABELS), weight)
    return g


def settings_of(**changes: Any) -> Settings:
    """Every step reads all points; the rate is constant unless it is changed."""
    defaults = {
        "batch_size": len(LABELS),
        "lr": LR,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "schedule": "constant",
        "clip": 0.0,
        "max_steps": 6,
        "checkpoint_seconds": 0.0,
    }
    return Settings(**{**defaults, **changes})


def trained(recipe: Recipe, folder: Path | None = None, watch: Any = None, **changes: Any) -> nn.Module:
    run = Run(settings_of(**changes), folder, watch, 1, quiet=True)
    return recipe.run(Artefact(two_weights(), ImageTask()), POINTS, run).model


def recipe_of(**seams: Any) -> Recipe:
    return Recipe((Term("forget"),), **{"optimizer": SGD(momentum=0.0), **seams})


def stop_after(steps: int) -> Callable[[Any, int], None]:
    def stop(model: Any, step: int) -> None:
        if step == steps:
            raise KeyboardInterrupt

    return stop


# --- what a selection adds ---


@dataclasses.dataclass(frozen=True)
class Shrunk(All):
    """All weights, with strength / 2 · |w|² in the objective."""

    strength: float = 0.5

    def apply(self, context: Context) -> Selected:
        selected = super().apply(context)

        def penalty() -> Tensor:
            return self.strength / 2 * sum(p.square().sum() for p in selected.parameters.values())

        return dataclasses.replace(selected, penalty=penalty)


@dataclasses.dataclass(frozen=True)
class Sparse(All):
    """All weights, soft-thresholded by lr · strength after each step: the proximal step of strength ·
    |w|₁."""

    strength: float = 0.5

    def apply(self, context: Context) -> Selected:
        selected = super().apply(context)

        def shrink(lr: float) -> None:
            for p in selected.parameters.values():
                p.copy_(F.softshrink(p, lr * self.strength))

        return dataclasses.replace(selected, after_step=shrink)


def test_a_penalty_towards_zero_is_weight_decay_in_the_gradient() -> None:
    """By hand: w ← w − lr (g + λ w); and as torch's SGD decays."""
    weight = two_weights().weight.detach().clone()
    for _ in range(6):
        weight -= LR * (gradient(weight) + 0.5 * weight)
    penalised = trained(recipe_of(selection=Shrunk()))
    decayed = trained(recipe_of(), weight_decay=0.5)
    assert torch.allclose(penalised.weight, weight, atol=1e-6)
    assert torch.allclose(penalised.weight, decayed.weight, atol=1e-6)
    assert not torch.allclose(penalised.weight, trained(recipe_of()).weight, atol=1e-3)


def test_a_penalty_is_logged(tmp_path: Path) -> None:
    trained(recipe_of(selection=Shrunk()), tmp_path, max_steps=1)
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["penalty"] == pytest.approx(0.25 * (0.8**2 + 0.3**2))


def test_a_proximal_step_follows_each_step_and_gives_exact_zeros() -> None:
    """By hand: w ← shrink(w − lr g, lr τ). A sub-gradient of |w|₁ comes near 0 and never there."""
    weight = two_weights().weight.detach().clone()
    for _ in range(40):
        weight = F.softshrink(weight - LR * gradient(weight), LR * 0.5)
    sparse = trained(recipe_of(selection=Sparse()), max_steps=40)
    assert torch.allclose(sparse.weight, weight, atol=1e-6)
    assert (sparse.weight == 0).any() and not (trained(recipe_of(), max_steps=40).weight == 0).any()


def test_a_proximal_step_gets_the_rate_of_its_step() -> None:
    """The linear schedule takes 6/6, 5/6, … of the rate."""
    weight = two_weights().weight.detach().clone()
    for left in range(6, 0, -1):
        lr = LR * left / 6
        weight = F.softshrink(weight - lr * gradient(weight), lr * 0.5)
    sparse = trained(recipe_of(selection=Sparse()), schedule="linear")
    assert torch.allclose(sparse.weight, weight, atol=1e-6)


@pytest.mark.parametrize("selection", [Shrunk(), Sparse()], ids=["penalty", "proximal"])
def test_a_stopped_run_with_more_than_a_gradient_goes_on_exactly(selection: Any, tmp_path: Path) -> None:
    recipe = recipe_of(selection=selection, optimizer=AdamW())
    whole = trained(recipe)
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, tmp_path, stop_after(3))
    assert torch.equal(trained(recipe, tmp_path).weight, whole.weight)


# --- adapters that stay ---


@pytest.fixture(scope="module")
def texts() -> Split:
    def rows(word: str, count: int) -> list[dict[str, str]]:
        return [
            {"question": f"{word} is {i}?", "answer": "the long river " * (1 + i % 3)} for i in range(count)
        ]

    return make_split({"forget": rows("Who", 8), "retain": rows("Where", 8)})


@pytest.fixture(scope="module")
def start(tiny_llama: Any, tokenizer: Any) -> Artefact:
    return Artefact(copy.deepcopy(tiny_llama), LanguageTask(tokenizer))


def adapted(start: Artefact, texts: Split, keep: bool) -> Artefact:
    selection = LoRA(rank=2, keep=keep)
    return api.forget(
        start, texts, "npo", selection=selection, lr=1e-2, batch_size=4, max_steps=4, quiet=True
    )


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(2, 40)[None]).logits


def test_adapters_that_are_kept_say_what_merged_ones_do(start: Artefact, texts: Split) -> None:
    kept, merged = adapted(start, texts, keep=True), adapted(start, texts, keep=False)
    assert torch.allclose(logits(kept.model), logits(merged.model), atol=1e-5)
    assert not torch.allclose(logits(kept.model), logits(start.model), atol=1e-3)
    assert type(kept.model) is type(start.model) and kept.model is not start.model
    before = start.model.state_dict()
    beneath = {
        name.replace(".base_layer", ""): value
        for name, value in kept.model.state_dict().items()
        if "lora_" not in name
    }
    assert beneath.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in beneath.items())
    assert merged.model.state_dict().keys() == before.keys()


def test_a_model_with_adapters_is_audited(start: Artefact, texts: Split) -> None:
    kept, merged = adapted(start, texts, keep=True), adapted(start, texts, keep=False)
    assert kept.digest not in (start.digest, merged.digest) and kept.verify() == kept.digest
    figures = [
        api.audit(artefact, texts, audits=["probability"], quiet=True)[0].value for artefact in (kept, merged)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)


def test_a_model_with_adapters_is_not_saved(start: Artefact, texts: Split, tmp_path: Path) -> None:
    kept = adapted(start, texts, keep=True)
    with pytest.raises(ModelError, match=r"adapters are still in the model.*keep=false") as refused:
        kept.save(tmp_path / "model")
    assert "\n" not in str(refused.value) and not (tmp_path / "model").exists()
    adapted(start, texts, keep=False).save(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_adapters_are_not_drawn_anew_over_others(start: Artefact, texts: Split) -> None:
    kept = adapted(start, texts, keep=True)
    with pytest.raises(ModelError, match="adapters are still in the model: choose another selection"):
        adapted(kept, texts, keep=False)
    assert selections.make({"name": "lora", "keep": True}) == LoRA(keep=True)


# --- a loss that reads the model ---


@dataclasses.dataclass(frozen=True)
class Levelled(PlainLoss):
    """Minus the answer's mean loss, times the forget set's mean loss at the latest reading."""

    interval: int | None = 2
    needs: ClassVar[tuple[Need, ...]] = (ANSWER,)

    @property
    def refresh_every(self) -> int | None:  # type: ignore[override]
        return self.interval

    def init(self, context: Context) -> State:
        return {"level": 1.0, "readings": 0}

    def refresh(self, context: Context, state: State) -> State:
        losses = context.probe.losses("forget", np.arange(len(context.split["forget"])))
        return {"level": float(losses.mean()), "readings": state["readings"] + 1}

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        return state["level"] * view.read(ANSWER).mean(), state


def levelled(
    start: Artefact, texts: Split, interval: int | None, folder: Path | None = None, watch: Any = None
) -> Artefact:
    recipe = Recipe((Term("forget", Levelled(interval)), Term("retain", "nll")))
    settings = settings_of(batch_size=4, lr=1e-2, epochs=3, max_steps=6)
    return recipe.run(start.copy(), texts, Run(settings, folder, watch, 1, quiet=True))


def state_of_loss(folder: Path) -> State:
    latest = checkpoint.latest_checkpoint(folder / "checkpoint")
    return checkpoint.entries_under(latest, "phases/0/states/loss/0")


@pytest.mark.parametrize(("interval", "readings"), [(None, 0), (0, 1), (1, 6), (2, 3), (4, 2)])
def test_a_loss_reads_the_model_at_its_interval(
    interval: int | None, readings: int, start: Artefact, texts: Split, tmp_path: Path
) -> None:
    levels: list[float] = []

    def watch(model: Any, step: int) -> None:
        probe = dataclasses.replace(context, model=model).probe
        levels.append(float(probe.losses("forget", np.arange(8)).mean()))

    context = Context(start.model, start.task, texts, ("forget",), {"forget": texts["forget"].keys}, 4, 0)
    watch(start.model, 0)
    levelled(start, texts, interval, tmp_path, watch)
    state = state_of_loss(tmp_path)
    assert state["readings"] == readings
    last = 1.0 if interval is None else levels[0 if interval == 0 else 5 // interval * interval]
    assert state["level"] == pytest.approx(last, rel=1e-9), "of the model before the step of the reading"


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stopped_run_whose_loss_reads_the_model_goes_on_exactly(
    steps: int, start: Artefact, texts: Split, tmp_path: Path
) -> None:
    whole = levelled(start, texts, 2, tmp_path / "whole")
    with contextlib.suppress(KeyboardInterrupt):
        levelled(start, texts, 2, tmp_path / "cut", stop_after(steps))
    assert levelled(start, texts, 2, tmp_path / "cut").weights == whole.weights
    assert state_of_loss(tmp_path / "cut") == state_of_loss(tmp_path / "whole")
    assert levelled(start, texts, None).weights != whole.weights


# --- optimisers and schedules ---


def by_torch(optimizer: Callable[[Any], Any], rates: Iterator[float], steps: int = 6) -> Tensor:
    """The weights after some steps of a torch optimiser on the mean loss of all points."""
    weight = two_weights().weight
    chosen = optimizer([weight])
    for _ in range(steps):
        for group in chosen.param_groups:
            group["lr"] = next(rates)
        weight.grad = gradient(weight)
        chosen.step()
    return weight.detach()


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_is_torchs(momentum: float, nesterov: bool, decay: float) -> None:
    def optimizer(parameters: Any) -> Any:
        return torch.optim.SGD(parameters, lr=LR, momentum=momentum, weight_decay=decay, nesterov=nesterov)

    own = trained(recipe_of(optimizer=SGD(momentum, nesterov)), weight_decay=decay)
    assert torch.allclose(own.weight, by_torch(optimizer, itertools.repeat(LR)), atol=1e-6)


def test_two_steps_of_momentum_by_hand() -> None:
    """v₁ = g₁, v₂ = μ v₁ + g₂; w ← w − lr v."""
    start = two_weights().weight.detach()
    first = gradient(start)
    second = 0.9 * first + gradient(start - LR * first)
    own = trained(recipe_of(optimizer=SGD()), max_steps=2)
    assert torch.allclose(own.weight, start - LR * first - LR * second, atol=1e-6)


def test_the_rate_falls_at_each_milestone() -> None:
    """An epoch is one step here: from the third on a tenth, from the sixth on a hundredth."""
    rates = [LR, LR, LR / 10, LR / 10, LR / 10, LR / 100]
    schedule = Milestones((2.0, 5.0))
    assert [LR * schedule.scale(epoch) for epoch in range(6)] == pytest.approx(rates)
    own = trained(recipe_of(optimizer=SGD(), schedule=schedule))
    expected = by_torch(lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9), iter(rates))
    assert torch.allclose(own.weight, expected, atol=1e-6)
    assert Milestones((1.5,), factor=0.5).scale(1.4) == 1 and Milestones((1.5,), factor=0.5).scale(1.5) == 0.5


def test_a_milestone_within_an_epoch_and_after_the_warm_up() -> None:
    """Two steps an epoch, one epoch of warm-up: half the rate, the whole, and a fifth from the fourth step
    on."""
    rates: list[float] = []

    @dataclasses.dataclass(frozen=True)
    class Rated(All):
        def apply(self, context: Context) -> Selected:
            return dataclasses.replace(super().apply(context), after_step=rates.append)

    recipe = recipe_of(selection=Rated(), schedule=Milestones((1.5,), factor=0.2))
    for replaced in ("constant", "linear"):
        rates.clear()
        trained(recipe, batch_size=2, warmup=1.0, max_steps=5, schedule=replaced)
        assert rates == pytest.approx([LR / 2, LR, LR, LR / 5, LR / 5]), "the settings' schedule is replaced"


@pytest.mark.parametrize("optimizer", [SGD(), SGD(0.9, nesterov=True), AdamW((0.8, 0.9))], ids=str)
def test_a_stopped_run_keeps_its_momentum(optimizer: Any, tmp_path: Path) -> None:
    recipe = recipe_of(optimizer=optimizer, schedule=Milestones((4.0,)))
    whole = trained(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, tmp_path / "cut", stop_after(3))
    assert torch.equal(trained(recipe, tmp_path / "cut").weight, whole.weight)
    fresh = trained(dataclasses.replace(recipe, optimizer=SGD(0.0)), tmp_path / "plain")
    assert not torch.allclose(fresh.weight, whole.weight, atol=1e-4)
