"""Artefacts: what their digest covers, that they tell when they changed, and that they come back from a
folder as they were."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

import unremember as un
from unremember.data.split import Split, make_split
from unremember.errors import ConfigError, ModelError
from unremember.models.load import save_model
from unremember.tasks.artefact import Artefact, load_artefact, task_name
from unremember.tasks.image import ImageTask
from unremember.tasks.language import LanguageTask
from unremember.tasks.protocol import Need
from unremember.tasks.text import Template
from unremember.worlds.micro import micro_net


@pytest.fixture
def artefact(model: Any, tokenizer: Any) -> Artefact:
    return Artefact(model, LanguageTask.of(model, tokenizer))


@pytest.fixture(scope="module")
def split() -> Split:
    def rows(count: int, word: str) -> list[dict[str, str]]:
        return [{"question": f"{word} is {i}?", "answer": "the long river"} for i in range(count)]

    return make_split({"forget": rows(4, "Who"), "retain": rows(6, "Where")})


def classifier() -> Any:
    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=1,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        num_labels=4,
    )
    return ResNetForImageClassification(config).eval()


@dataclasses.dataclass(frozen=True)
class Refusing:
    """A guard with a digest of its own."""

    digest: str = "refuses"


def test_the_digest_covers_weights_task_configuration_and_guard(artefact: Artefact, tokenizer: Any) -> None:
    model, task = artefact.model, artefact.task
    nudged, slower = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        next(nudged.parameters()).view(-1)[0] += 1e-4
    slower.config.rope_parameters = {**slower.config.rope_parameters, "rope_theta": 20_000.0}
    others = [
        Artefact(nudged, task),
        Artefact(slower, task),
        Artefact(model, LanguageTask(tokenizer, Template("Q: {question}\nA:\n"))),
        Artefact(model, task, Refusing()),
        Artefact(model, task, Refusing("refuses more")),
    ]
    digests = {other.digest for other in others}
    assert len(digests | {artefact.digest}) == 6
    assert artefact.digest == Artefact(copy.deepcopy(model), LanguageTask.of(model, tokenizer)).digest
    assert others[1].weights == artefact.weights != others[0].weights


def test_an_artefact_tells_that_its_weights_changed(artefact: Artefact) -> None:
    assert artefact.verify() == artefact.digest == artefact.verify()
    with torch.no_grad():
        next(artefact.model.parameters()).view(-1)[0] += 1e-4
    with pytest.raises(ModelError, match="changed since its digest was taken"):
        artefact.verify()


def test_an_artefact_is_immutable_and_a_copy_is_another_model(artefact: Artefact) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        artefact.model = None  # type: ignore[misc]
    copied = artefact.copy()
    assert copied.digest == artefact.digest and copied.model is not artefact.model
    with torch.no_grad():
        next(copied.model.parameters()).zero_()
    assert artefact.verify() == artefact.digest


@pytest.mark.parametrize("method", ["gradient_ascent", "task_vector", "retrain", "rmu"])
def test_forgetting_leaves_the_given_model_alone(method: str, artefact: Artefact, split: Split) -> None:
    before = artefact.digest
    flags = [p.requires_grad for p in artefact.model.parameters()]
    forgotten = un.forget(artefact, split, method, epochs=1, batch_size=4, lr=1e-2, quiet=True)
    assert artefact.verify() == before != forgotten.digest
    assert flags == [p.requires_grad for p in artefact.model.parameters()]
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in zip(artefact.model.parameters(), forgotten.model.parameters())
    )


def test_forgetting_in_place_changes_the_given_model(artefact: Artefact, split: Split) -> None:
    """The same result without a second model in memory; the artefact that was given then refuses to be
    measured."""
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 4, "lr": 1e-2, "quiet": True}
    kept = un.forget(artefact, split, "gradient_ascent", **settings)
    assert artefact.digest
    changed = un.forget(artefact, split, "gradient_ascent", inplace=True, **settings)
    assert changed.digest == kept.digest and changed.model is artefact.model
    with pytest.raises(ModelError, match="changed since"):
        un.audit(artefact, split, audits=["probability"], quiet=True)


def test_a_bare_model_needs_its_task(model: Any, split: Split) -> None:
    with pytest.raises(ConfigError, match=r"give tokenizer=… for a language model, or an Artefact"):
        un.forget(model, split, "gradient_ascent")


def test_a_language_artefact_comes_back_from_a_folder(
    artefact: Artefact, tokenizer: Any, tmp_path: Path
) -> None:
    chatty = Artefact(artefact.model, LanguageTask.of(artefact.model, tokenizer, "Ask: {question}\nSay:\n"))
    for number, saved in enumerate((artefact, chatty)):
        saved.save(tmp_path / str(number))
        loaded = load_artefact(tmp_path / str(number))
        assert loaded.digest == saved.digest and loaded.task.name == "language"
    assert load_artefact(tmp_path / "1", "Question: {question}\nAnswer:\n").digest == artefact.digest
    assert un.load(tmp_path / "0").digest == artefact.digest


def test_an_image_artefact_comes_back_from_a_folder(tmp_path: Path) -> None:
    saved = Artefact(classifier(), ImageTask())
    saved.save(tmp_path / "model")
    loaded = load_artefact(tmp_path / "model")
    assert loaded.task == ImageTask() and loaded.digest == saved.digest
    with pytest.raises(ConfigError, match="leave out template"):
        load_artefact(tmp_path / "model", "chat")


def test_a_folder_of_transformers_tells_its_task_by_its_architecture(
    tiny_llama: Any, tokenizer: Any, tmp_path: Path
) -> None:
    classifier().save_pretrained(tmp_path / "images")
    save_model(tiny_llama, tokenizer, tmp_path / "texts")
    assert task_name(str(tmp_path / "images")) == "image" and task_name(str(tmp_path / "texts")) == "language"
    assert load_artefact(tmp_path / "images").task == ImageTask()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"task": "sound"}', "names the task 'sound'"),
        ("{", "cannot be read"),
        ('{"task": 3}', "names the task 3"),
    ],
)
def test_a_record_that_names_no_task_is_refused(
    text: str, line: str, artefact: Artefact, tmp_path: Path
) -> None:
    artefact.save(tmp_path / "model")
    (tmp_path / "model" / "task.json").write_text(text)
    with pytest.raises((ConfigError, ModelError), match=line) as caught:
        load_artefact(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_guarded_model_is_not_saved_without_its_guard(artefact: Artefact, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a guard is not saved with its model"):
        dataclasses.replace(artefact, guard=Refusing()).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_module_that_cannot_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Sequential has no configuration"):
        Artefact(micro_net(), ImageTask()).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "need", [Need("input", "hidden", 1), Need("input", "logprobs"), Need("answer", "logits")]
)
def test_an_image_view_refuses_what_it_cannot_give(need: Need) -> None:
    """Before training (check), and where somebody reads it all the same (a hidden layer was once answered
    with class scores)."""
    import numpy as np

    task, rows = ImageTask(), [{"input": torch.zeros(96, dtype=torch.float64), "label": 1}]
    data = task.encode(make_split({"forget": rows}), "forget", ["input"])
    view = task.forward(
        micro_net(), {"forget": (data, np.array([0]))}, {"forget": [Need("input", "logits")]}
    )["forget"]
    for refused in (lambda: task.check([need]), lambda: view.read(need)):
        with pytest.raises(ConfigError, match=r"images|image classifier"):
            refused()
    assert torch.equal(view.read(Need("input", "labels")), torch.tensor([1]))


def test_a_text_view_refuses_images_and_layers_without_a_number(artefact: Artefact) -> None:
    for need, line in (
        (Need("input", "logits"), "texts"),
        (Need("answer", "hidden"), "give its number as layer"),
    ):
        with pytest.raises(ConfigError, match=line):
            artefact.task.check([need])
