"""What a blend may ask of a step: displaced readings, raw changes, corrections, masks; samplings that read
the model."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from unremember.data.split import Split, make_split
from unremember.engine import loop
from unremember.engine.blends import PlainBlend, combine
from unremember.engine.recipe import Recipe
from unremember.engine.samplings import Batch
from unremember.engine.samplings.paired import Paired
from unremember.engine.seams import Selected, State, Term
from unremember.engine.selections import only
from unremember.engine.settings import Settings
from unremember.errors import Collapsed
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Template

TERMS = (Term("forget", "ascent", 0.5), Term("retain", "nll", 2.0))


@pytest.fixture(scope="module")
def split() -> Split:
    forget = [{"question": f"Who is {i}?", "answer": "the long river " * (1 + i % 3)} for i in range(6)]
    retain = [{"question": f"Where is {i}?", "answer": "near the harbour " * (1 + i % 2)} for i in range(7)]
    return make_split({"forget": forget, "retain": retain})


def run(
    model: Any,
    tokenizer: Any,
    split: Split,
    recipe: Recipe,
    folder: Path | None = None,
    watch: Any = None,
    every: int = 0,
    **changes: Any,
) -> Any:
    settings = Settings(**{"epochs": 2, "batch_size": 3, "lr": 1e-3, "clip": 0.0, **changes})
    task = LanguageTask(tokenizer, Template("{question}\n"))
    return loop.run_recipe(
        copy.deepcopy(model), task, split, recipe, settings, folder, watch, every, quiet=True
    )


def same(left: Any, right: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values()))


@dataclasses.dataclass(frozen=True)
class Asking(PlainBlend):
    """Calls ``ask`` with the measurement and gives the plain sum."""

    ask: Any = None

    def apply(self, measure: Any, state: State) -> tuple[list[Tensor], State]:
        self.ask(measure)
        return measure.total(), state


def test_losses_are_the_weighted_figures_of_the_log(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    def ask(measure: Any) -> None:
        plain = measure.losses()
        measure.gradients()
        assert (
            plain["forget"] == pytest.approx(0.5 * measure.figures["forget/ascent"], rel=1e-6)
            and plain["forget"] < 0
        )
        assert plain["retain"] == pytest.approx(2.0 * measure.figures["retain/nll"], rel=1e-6)

    run(tiny_llama, tokenizer, split, Recipe(TERMS, Asking(ask)), max_steps=1)


def test_a_displaced_loss_follows_the_gradient(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    """Central differences along the gradient give its squared norm, and the weights come back bit for bit."""

    def ask(measure: Any) -> None:
        before = [p.detach().clone() for p in measure.parameters]
        (gradient,) = measure.gradients("retain").values()
        size = float(torch.nn.utils.get_total_norm(gradient))
        up, down = (
            measure.losses("retain", displacement=[sign * 3e-3 / size * g for g in gradient])["retain"]
            for sign in (1, -1)
        )
        assert (up - down) / 6e-3 == pytest.approx(size, rel=1e-2)
        further = measure.gradients("retain", displacement=[-0.2 / size * g for g in gradient])["retain"]
        assert float(torch.nn.utils.get_total_norm([a - b for a, b in zip(further, gradient)])) > 1e-3 * size
        assert all(torch.equal(p, held) for p, held in zip(measure.parameters, before))

    run(tiny_llama, tokenizer, split, Recipe(TERMS, Asking(ask)), max_steps=1)


def test_asking_changes_nothing(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    """Dropout, losses' states and weights are as if nobody had asked."""

    def ask(measure: Any) -> None:
        measure.losses(displacement=[torch.ones_like(p) for p in measure.parameters])
        measure.gradients("forget", displacement=[torch.ones_like(p) for p in measure.parameters])

    selection = {"name": "lora", "rank": 2, "dropout": 0.3}
    plain, asked = (
        run(tiny_llama, tokenizer, split, Recipe(TERMS, blend, selection=selection))
        for blend in ("sum", Asking(ask))
    )
    assert same(plain, asked) and not same(plain, tiny_llama)


def test_readings_of_a_step_share_their_dropout(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    seen: list[list[float]] = []

    def ask(measure: Any) -> None:
        seen.append([measure.losses("retain")["retain"] for _ in range(2)])

    model = copy.deepcopy(tiny_llama)
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    run(model, tokenizer, split, Recipe(TERMS, Asking(ask)), lr=1e-9, max_steps=2)
    assert seen[0][0] == seen[0][1] and seen[1][0] == seen[1][1], "within a step"
    once = run_losses(model, tokenizer, split)
    assert once != pytest.approx(seen[0][0], abs=1e-6), "dropout is really on"


def run_losses(model: Any, tokenizer: Any, split: Split) -> float:
    found = []
    still = copy.deepcopy(model)
    for layer in still.model.layers:
        layer.self_attn.attention_dropout = 0.0
    run(
        still,
        tokenizer,
        split,
        Recipe(TERMS, Asking(lambda m: found.append(m.losses("retain")["retain"]))),
        max_steps=1,
    )
    return found[0]


@dataclasses.dataclass(frozen=True)
class Raw(PlainBlend):
    """Plain gradient descent on the weights themselves."""

    raw: ClassVar[bool] = True
    rate: float = 0.1

    def apply(self, measure: Any, state: State) -> tuple[list[Tensor], State]:
        return [-self.rate * g for g in combine(measure.gradients(), [1.0, 1.0])], state


def test_a_raw_change_reaches_the_weights_as_it_is(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    found: list[list[Tensor]] = []
    run(tiny_llama, tokenizer, split, Recipe(TERMS, Asking(lambda m: found.append(m.total()))), max_steps=1)
    done = run(tiny_llama, tokenizer, split, Recipe(TERMS, Raw()), weight_decay=0.5, max_steps=1)
    for p, start, gradient in zip(done.parameters(), tiny_llama.parameters(), found[0]):
        assert torch.allclose(p - start, -0.1 * gradient, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Halved(PlainBlend):
    """Takes half of what the optimiser did, and keeps what it was told."""

    corrects: ClassVar[bool] = True
    seen: list[Any] = dataclasses.field(default_factory=list)

    def apply(self, measure: Any, state: State) -> tuple[list[Tensor], State]:
        return measure.total(), state

    def correct(self, change: list[Tensor], measure: Any, state: State) -> tuple[list[Tensor], State]:
        self.seen.append((change, measure.denominators))
        return [c / 2 for c in change], state


def test_a_correction_has_the_last_word(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    blend = Halved()
    whole, half = (run(tiny_llama, tokenizer, split, Recipe(TERMS, b), max_steps=1) for b in ("sum", blend))
    for a, b, start, told, scale in zip(
        whole.parameters(), half.parameters(), tiny_llama.parameters(), *blend.seen[0]
    ):
        assert torch.allclose(b - start, (a - start) / 2, atol=1e-7) and torch.allclose(
            told, a - start, atol=1e-7
        )
        assert (scale > 0).all() and scale.shape == start.shape
    assert (
        max(float((b - s).detach().abs().max()) for b, s in zip(half.parameters(), tiny_llama.parameters()))
        > 1e-5
    )


def test_denominators_are_adams(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    """After one step v̂ is the squared gradient."""
    gradients: list[list[Tensor]] = []

    @dataclasses.dataclass(frozen=True)
    class Both(Halved):
        def apply(self, measure: Any, state: State) -> tuple[list[Tensor], State]:
            gradients.append([g.clone() for g in measure.total()])
            assert all((d == 1).all() for d in measure.denominators)
            return measure.total(), state

    blend = Both()
    run(tiny_llama, tokenizer, split, Recipe(TERMS, blend), max_steps=1)
    for scale, gradient in zip(blend.seen[0][1], gradients[0]):
        assert torch.allclose(scale, gradient.abs() + 1e-8, rtol=1e-3, atol=1e-8)


@dataclasses.dataclass(frozen=True)
class Rows:
    """The first three rows of the first MLP projection."""

    def apply(self, context: Any) -> Selected:
        name = "model.layers.0.mlp.up_proj.weight"
        chosen = only(context.model, [name])
        mask = torch.zeros_like(chosen.parameters[name])
        mask[:3] = 1
        return dataclasses.replace(chosen, masks={name: mask})


@pytest.mark.parametrize(
    "blend", ["sum", "pcgrad", Raw(), Halved()], ids=lambda b: b if isinstance(b, str) else type(b).__name__
)
def test_a_mask_moves_its_entries_alone(blend: Any, tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    done = run(tiny_llama, tokenizer, split, Recipe(TERMS, blend, selection=Rows()), weight_decay=0.5)
    moved = done.model.layers[0].mlp.up_proj.weight != tiny_llama.model.layers[0].mlp.up_proj.weight
    assert moved[:3].float().mean() > 0.9 and not moved[3:].any()
    rest = [(n, p) for n, p in done.named_parameters() if "layers.0.mlp.up_proj" not in n]
    assert all(torch.equal(p, dict(tiny_llama.named_parameters())[n]) for n, p in rest)


@dataclasses.dataclass(frozen=True)
class GradientProbe(Paired):
    """Paired, with forget weights read from the model at an interval."""

    refresh_every: int | None = 2  # type: ignore[misc]
    seen: list[float] = dataclasses.field(default_factory=list)

    def refresh(self, context: Any, state: State) -> State:
        level = float(next(context.model.parameters()).detach().double().sum())
        self.seen.append(level)
        return {**state, "weight": abs(level) % 1 + 0.5}

    def apply(self, context: Any, state: State) -> tuple[Batch, State]:
        step, after = super().apply(context, state)
        draw = step["forget"]
        weight = np.full(len(draw.rows), state.get("weight", 1.0), dtype=np.float32)
        return {**step, "forget": dataclasses.replace(draw, weights=weight)}, after


@pytest.mark.parametrize(("interval", "times"), [(0, 1), (1, 4), (2, 2), (3, 2)])
def test_a_sampling_reads_the_model_at_its_interval(
    interval: int, times: int, tiny_llama: Any, tokenizer: Any, split: Split
) -> None:
    sampling = GradientProbe(refresh_every=interval)
    run(tiny_llama, tokenizer, split, Recipe(TERMS, sampling=sampling))
    assert len(sampling.seen) == times == len(set(sampling.seen))


def test_a_stopped_run_that_reads_the_model_goes_on_exactly(
    tiny_llama: Any, tokenizer: Any, split: Split, tmp_path: Path
) -> None:
    def stop(model: Any, step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    recipe = Recipe(TERMS, sampling=GradientProbe(refresh_every=2))
    whole = run(tiny_llama, tokenizer, split, recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(
            tiny_llama,
            tokenizer,
            split,
            dataclasses.replace(recipe, sampling=GradientProbe(refresh_every=2)),
            tmp_path / "cut",
            stop,
            every=1,
        )
    assert same(
        whole,
        run(
            tiny_llama,
            tokenizer,
            split,
            dataclasses.replace(recipe, sampling=GradientProbe(refresh_every=2)),
            tmp_path / "cut",
        ),
    )


def test_watching_may_end_the_run_for_good(
    tiny_llama: Any, tokenizer: Any, split: Split, tmp_path: Path
) -> None:
    steps: list[int] = []

    def enough(model: Any, step: int) -> bool:
        steps.append(step)
        return step == 2

    done = run(tiny_llama, tokenizer, split, Recipe(TERMS), tmp_path, enough, every=1)
    assert steps == [1, 2] and len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    again = run(tiny_llama, tokenizer, split, Recipe(TERMS), tmp_path, enough, every=1)
    assert steps == [1, 2] and same(done, again)


@dataclasses.dataclass(frozen=True)
class Wild(Raw):
    rate: float = float("inf")


def test_a_raw_change_that_is_not_finite_ends_the_run(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    with pytest.raises(Collapsed, match="norm of the change"):
        run(tiny_llama, tokenizer, split, Recipe(TERMS, Wild()), max_steps=1)
