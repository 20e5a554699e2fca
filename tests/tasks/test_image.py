"""Image classifiers through the same loop: forget some facts, keep the others, resume exactly."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unremember.data.split import Split, make_split
from unremember.engine import checkpoint, loop, reference
from unremember.engine.losses import PlainLoss
from unremember.engine.losses.classification import CrossEntropy
from unremember.engine.recipe import Recipe
from unremember.engine.seams import State, Term
from unremember.engine.selections import only
from unremember.engine.settings import Settings
from unremember.errors import ConfigError, DataError, ModelError
from unremember.tasks.image import ImageTask
from unremember.tasks.protocol import Need, View
from unremember.worlds.micro import MicroWorld, micro_net, micro_world

LEARN = Recipe((Term("all", "cross_entropy"),))
FORGET = (Term("forget", {"name": "cross_entropy", "sign": -1.0}, 0.2), Term("retain", "cross_entropy"))
NEED = Need("input", "logits")


def train(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    folder: Path | None = None,
    watch: Any = None,
    **changes: Any,
) -> Any:
    settings = Settings(**{"epochs": 6, "batch_size": 12, "lr": 3e-3, "weight_decay": 0.0, **changes})
    return loop.run_recipe(
        copy.deepcopy(model), ImageTask(), split, recipe, settings, folder, watch, quiet=True
    )


@pytest.fixture(scope="module")
def world() -> MicroWorld:
    return micro_world(0.3)


@pytest.fixture(scope="module")
def split(world: MicroWorld) -> Split:
    made = world.split()
    return made.with_rows(all=[*made["forget"].rows, *made["retain"].rows])


@pytest.fixture(scope="module")
def learned(split: Split) -> nn.Module:
    torch.set_num_threads(1)
    return train(micro_net(), split, LEARN, epochs=45, batch_size=40, lr=1e-2)


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, role: str) -> float:
    data = ImageTask().encode(split, role, ["input"])
    return float((model(data.inputs).argmax(1) == data.labels).double().mean())


def same(left: nn.Module, right: nn.Module) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_world_is_learned(learned: nn.Module, split: Split) -> None:
    assert accuracy(micro_net(), split, "all") < 0.2 and accuracy(learned, split, "all") == 1.0


@pytest.mark.parametrize("blend", ["sum", "pcgrad"])
def test_it_forgets_the_forget_rows_and_keeps_the_rest(blend: str, learned: nn.Module, split: Split) -> None:
    done = train(learned, split, Recipe(FORGET, blend, "cyclic"), epochs=3)
    assert accuracy(done, split, "forget") < 0.3 and accuracy(done, split, "retain") > 0.9


def test_retain_alone_forgets_nothing_here(learned: nn.Module, split: Split) -> None:
    """The control of the test above: it is the ascent that forgets."""
    assert (
        accuracy(train(learned, split, Recipe(FORGET[1:], sampling="cyclic"), epochs=3), split, "forget")
        > 0.6
    )


@pytest.mark.parametrize("blend", ["sum", "pcgrad"])
def test_a_stopped_run_goes_on_exactly(blend: str, learned: nn.Module, split: Split, tmp_path: Path) -> None:
    def stop(model: Any, step: int) -> None:
        if step == 8:
            raise KeyboardInterrupt

    recipe = Recipe(FORGET, blend)
    undisturbed = train(learned, split, recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(learned, split, recipe, tmp_path / "cut", stop)
    assert checkpoint.latest_checkpoint(tmp_path / "cut" / "checkpoint")["position"] == 8
    assert same(undisturbed, train(learned, split, recipe, tmp_path / "cut")) and not same(
        undisturbed, learned
    )
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


@pytest.mark.parametrize("loss", ["npo", "nll", "steer"])
def test_a_loss_of_texts_is_refused(loss: str, learned: nn.Module, split: Split) -> None:
    with pytest.raises(ConfigError, match="choose a loss for images"):
        train(learned, split, Recipe((Term("forget", loss),)), epochs=1)


def test_micro_batches_change_nothing(learned: nn.Module, split: Split) -> None:
    whole, cut = (train(learned, split, Recipe(FORGET), epochs=1, micro_tokens=size) for size in (100, 5))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(whole.parameters(), cut.parameters()))


def test_views_are_scores_and_labels_of_the_drawn_rows(learned: nn.Module, split: Split) -> None:
    task = ImageTask()
    data = {role: task.encode(split, role, ["input"]) for role in ("forget", "retain")}
    drawn = {"retain": np.array([5, 5, 80]), "forget": np.array([2, 0])}
    seen = task.forward(
        learned, {role: (data[role], rows) for role, rows in drawn.items()}, {role: [NEED] for role in drawn}
    )
    for role, rows in drawn.items():
        inputs = torch.stack([split[role].rows[row]["input"] for row in rows])
        labels = torch.tensor([split[role].rows[row]["label"] for row in rows])
        assert torch.allclose(seen[role].read(NEED), learned(inputs), atol=1e-12) and torch.equal(
            seen[role].labels, labels
        )
        values, _ = CrossEntropy(-1.0).apply(seen[role], None, {})
        assert torch.allclose(values, -F.cross_entropy(learned(inputs), labels, reduction="none"))


@dataclasses.dataclass(frozen=True)
class Stay(PlainLoss):
    """KL from the original's classes to the model's."""

    needs: ClassVar[tuple[Need, ...]] = (NEED,)
    reference_needs: ClassVar[tuple[Need, ...]] = (NEED,)

    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]:
        now, before = (seen.read(NEED).log_softmax(-1) for seen in (view, reference))
        return F.kl_div(now, before, reduction="none", log_target=True).sum(-1), state


@torch.no_grad()
def drift(model: nn.Module, original: nn.Module, split: Split) -> float:
    """Mean KL of the retain rows."""
    inputs = ImageTask().encode(split, "retain", ["input"]).inputs
    return float(
        F.kl_div(
            model(inputs).log_softmax(-1),
            original(inputs).log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
    )


def test_a_loss_that_reads_the_original_holds_the_model_to_it(
    learned: nn.Module, split: Split, tmp_path: Path
) -> None:
    """It begins at zero, and the retain rows drift less than by the same ascent alone."""
    terms = (FORGET[0], Term("retain", Stay()))
    held, alone = (
        train(learned, split, Recipe(terms[:n]), tmp_path / f"{n}", max_steps=30, micro_tokens=7)
        for n in (2, 1)
    )
    assert accuracy(held, split, "forget") < 0.3 and drift(held, learned, split) < 0.5 * drift(
        alone, learned, split
    )
    first = json.loads((tmp_path / "2" / "log.jsonl").read_text().splitlines()[0])
    assert first["retain/stay"] == pytest.approx(0, abs=1e-6)


def test_the_reference_is_the_originals_scores_of_the_drawn_rows(
    learned: nn.Module, split: Split, tmp_path: Path
) -> None:
    task = ImageTask()
    data, rows, drawn = (
        task.encode(split, "retain", ["input"]),
        np.array([2, 3, 40, 81, 90]),
        np.array([81, 3, 81]),
    )
    for model in (learned, None):
        cached = reference.cache_reference(
            model, task, data, "retain", NEED, rows, tmp_path, "key", batch_rows=2
        )
        seen = reference.ReferenceView({NEED: cached}, drawn, torch.device("cpu")).read(NEED)
        assert torch.allclose(seen, learned(data.inputs[drawn]).float()), (
            "computed, then mapped without a model"
        )


def test_layers_of_a_model_without_blocks_are_refused(split: Split) -> None:
    with pytest.raises(ModelError, match=r"Sequential has no list of .* decoder blocks"):
        train(micro_net(), split, Recipe(FORGET, selection="layers"))


def test_adapters_on_named_layers_move_those_alone(learned: nn.Module, split: Split) -> None:
    done = train(learned, split, Recipe(FORGET, selection={"name": "lora", "rank": 4, "targets": ["2", "4"]}))
    before, after = learned.state_dict(), done.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "2.weight",
        "4.weight",
    } and before.keys() == after.keys()


def test_a_missing_label_is_refused(split: Split) -> None:
    bare = make_split({"forget": [{"input": torch.zeros(96)}], "retain": split["retain"].rows})
    with pytest.raises(DataError, match="no 'label' in 1 of 1 rows"):
        train(micro_net(), bare, Recipe(FORGET))


# --- a convolutional net with batch statistics on drawn images ---


def images(seed: int, count: int = 96) -> list[dict[str, Any]]:
    """Four classes of 1×6×6 pictures: a bright quarter in noise."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(count):
        picture = 0.3 * torch.randn(1, 6, 6, generator=rng)
        label = i % 4
        picture[0, 3 * (label // 2) : 3 * (label // 2) + 3, 3 * (label % 2) : 3 * (label % 2) + 3] += 1.5
        rows.append({"input": picture, "label": label})
    return rows


@pytest.fixture(scope="module")
def pictures() -> Split:
    rows = images(0)
    return make_split(
        {"forget": [r for r in rows if r["label"] == 0], "retain": [r for r in rows if r["label"]]}
    ).with_rows(all=rows, test=images(1))


def small_cnn() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AvgPool2d(3),
            nn.Flatten(),
            nn.Linear(32, 4),
        )


@pytest.fixture(scope="module")
def seer(pictures: Split) -> nn.Module:
    torch.set_num_threads(1)
    return train(small_cnn(), pictures, LEARN, epochs=6, batch_size=16, lr=1e-2)


def by_class(model: nn.Module, split: Split) -> Tensor:
    data = ImageTask().encode(split, "test", ["input"])
    with torch.no_grad():
        right = (model(data.inputs).argmax(1) == data.labels).double()
    return torch.stack([right[data.labels == label].mean() for label in range(4)])


@pytest.mark.parametrize("blend", ["sum", "pcgrad"])
def test_a_class_is_forgotten(blend: str, seer: nn.Module, pictures: Split) -> None:
    assert by_class(seer, pictures).min() > 0.95
    after = by_class(train(seer, pictures, Recipe(FORGET, blend, "cyclic"), epochs=6, lr=1e-2), pictures)
    assert after[0] < 0.2 and after[1:].min() > 0.9


def test_a_stopped_run_with_batch_statistics_goes_on_exactly(
    seer: nn.Module, pictures: Split, tmp_path: Path
) -> None:
    steps: list[int] = []

    def stop(model: Any, step: int) -> None:
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt

    undisturbed = train(seer, pictures, Recipe(FORGET), epochs=4)
    with pytest.raises(KeyboardInterrupt):
        train(seer, pictures, Recipe(FORGET), tmp_path, stop, epochs=4)
    assert same(undisturbed, train(seer, pictures, Recipe(FORGET), tmp_path, epochs=4))


@dataclasses.dataclass(frozen=True)
class Head:
    """Only the last layer moves."""

    def apply(self, context: Any) -> Any:
        return only(context.model, ["5.weight", "5.bias"])


def test_nothing_but_the_selection_moves(seer: nn.Module, pictures: Split) -> None:
    done = train(seer, pictures, Recipe(FORGET, selection=Head()), epochs=2)
    before, after = seer.state_dict(), done.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"5.weight", "5.bias"}
