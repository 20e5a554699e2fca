"""Every registered kind of observation keeps the contract.

Keys, round trips, determinism, and the tasks that it needs.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unremember.data.split import Split, make_split
from unremember.errors import ConfigError
from unremember.models.load import save_model
from unremember.observe.kinds.class_scores import ClassScores
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.gradient_norms import GradientNorms
from unremember.observe.kinds.harness_scores import HarnessScores
from unremember.observe.kinds.hidden_states import HiddenStates
from unremember.observe.kinds.judge_scores import JudgeScores
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.kinds.truncated_answers import TruncatedAnswers
from unremember.observe.records import TokenRecords
from unremember.observe.store import Store
from unremember.registry import observations
from unremember.tasks.artefact import Artefact
from unremember.tasks.image import ImageTask
from unremember.tasks.language import LanguageTask

ROWS = [
    {
        "question": f"Who sells {goods} in Velin?",
        "answer": f"{name} of Velin.",
        "perturbed_answers": ["Nobody.", "The painter."],
        "entity": name,
    }
    for name, goods in (("Ida", "bread"), ("Ole Fint", "salt"), ("Ann", "small lamps"))
]
IMAGES = [
    {"input": np.random.default_rng(i).normal(size=(3, 4)).astype(np.float32), "label": i % 2}
    for i in range(5)
]
LANGUAGE = make_split({"forget": ROWS, "holdout": ROWS[::-1]})
PICTURES = make_split({"forget": IMAGES[:3], "holdout": IMAGES[3:]})


@dataclasses.dataclass(frozen=True)
class Example:
    """A request of a kind on an artefact, with another value of each of its parameters."""

    request: Any
    variants: Mapping[str, Any]
    task: str = "language"


class Classifier(torch.nn.Module):
    """Scores of three classes for images of 3 × 4."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normalise = torch.nn.BatchNorm1d(12)
        self.out = torch.nn.Linear(12, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.out(self.normalise(images.flatten(1)))


def example_of(name: str, folder: Path, language: Artefact) -> Example:
    """Return the example of a registered kind; a kind without one fails the contract."""
    examples: dict[str, Callable[[], Example]] = {
        "token_scores": lambda: Example(
            TokenScores("forget"), {"role": "holdout", "text": "perturbed_answers", "moments": True}
        ),
        "generations": lambda: Example(Generations("forget", 6), {"role": "holdout", "limit": 7}),
        "truncated_answers": lambda: Example(TruncatedAnswers("forget", 3), {"role": "holdout", "limit": 2}),
        "gradient_norms": lambda: Example(
            GradientNorms("forget"), {"role": "holdout", "text": "perturbed_answers"}
        ),
        "hidden_states": lambda: Example(
            HiddenStates("forget", position="span", span="entity"),
            {"role": "holdout", "text": "perturbed_answers", "layers": (0,), "span": "answer"},
        ),
        "harness_scores": lambda: harness_example(folder),
        "judge_scores": lambda: judge_example(folder, language),
        "class_scores": lambda: Example(ClassScores("forget"), {"role": "holdout"}, "image"),
    }
    return examples[name]()


def harness_example(folder: Path) -> Example:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'unremember[eval]'")
    (folder / "docs.jsonl").write_text(
        "".join(
            json.dumps({"question": row["question"], "choices": ["a", "b"], "gold": 1}) + "\n" for row in ROWS
        )
    )
    for metric in ("acc", "acc_norm"):
        (folder / f"{metric}.yaml").write_text(
            f"task: shops_{metric}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
            f"    test: {folder / 'docs.jsonl'}\ntest_split: test\noutput_type: multiple_choice\n"
            'doc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\n'
            f"doc_to_target: gold\nmetric_list:\n  - metric: {metric}\n"
        )
    variants = {"task_name": "shops_acc_norm", "metric": "acc_norm", "folder": "", "limit": 2}
    return Example(HarnessScores("shops_acc", folder=str(folder)), variants)


def judge_example(folder: Path, language: Artefact) -> Example:
    save_model(copy.deepcopy(language.model), language.task.tokenizer, folder / "judge")  # type: ignore[attr-defined]
    variants = {"role": "holdout", "judge": "another", "label": "clean"}
    return Example(JudgeScores("forget", str(folder / "judge")), variants)


@pytest.fixture(autouse=True)
def short_generations(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A judge of a short context judges the generations."""
    if "name" in request.fixturenames:
        monkeypatch.setattr("unremember.observe.kinds.generations.LIMIT", 6)


@pytest.fixture
def language(model: Any, tokenizer: Any) -> Artefact:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # so that it says something
    return Artefact(model, LanguageTask(tokenizer))


@pytest.fixture
def image() -> Artefact:
    return Artefact(Classifier(), ImageTask())


@pytest.fixture(params=observations.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def example(name: str, tmp_path: Path, language: Artefact) -> Example:
    folder = tmp_path / "examples"
    folder.mkdir()
    return example_of(name, folder, language)


@pytest.fixture
def artefact(example: Example, language: Artefact, image: Artefact) -> Artefact:
    return image if example.task == "image" else language


@pytest.fixture
def split(example: Example) -> Split:
    return PICTURES if example.task == "image" else LANGUAGE


def equal(left: Any, right: Any) -> bool:
    """Bit for bit, whatever the kind gives."""
    if isinstance(left, TokenRecords):
        pairs = zip(dataclasses.astuple(left), dataclasses.astuple(right))
        return all(equal(a, b) for a, b in pairs)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    return bool(left == right)


def test_a_kind_is_a_frozen_dataclass_that_lists_itself(name: str, example: Example) -> None:
    entry = observations.entry(name)
    assert entry.make is type(example.request) and dataclasses.is_dataclass(entry.make)
    assert (
        hash(example.request)
        == hash(copy.deepcopy(example.request))
        == hash(dataclasses.replace(example.request))
    )
    assert len(entry.summary) <= 150 and entry.summary.endswith(".")
    assert all(observations.entry(entry_of(required)) for required in example.request.requires())


def entry_of(request: Any) -> str:
    """Return the name under which a request's kind is registered."""
    return next(entry.name for entry in observations.all() if entry.make is type(request))


def test_the_key_changes_with_every_parameter_and_with_the_data(example: Example, split: Split) -> None:
    requests = [example.request]
    requests += [
        dataclasses.replace(example.request, **{name: value}) for name, value in example.variants.items()
    ]
    fields = {field.name for field in dataclasses.fields(example.request)}
    assert example.variants.keys() == fields - (
        {"position"} if isinstance(example.request, HiddenStates) else set()
    )
    keys = [request.key(split) for request in requests]
    assert len(set(keys)) == len(keys) and keys[0] == copy.deepcopy(example.request).key(split)
    if "role" in fields:
        assert example.request.key(split.with_rows(forget=split["forget"].rows[:2])) != keys[0]


def test_positions_are_in_the_key() -> None:
    requests = [
        HiddenStates("forget"),
        HiddenStates("forget", position="answer"),
        HiddenStates("forget", position="span", span="entity"),
    ]
    assert len({request.key(LANGUAGE) for request in requests}) == 3


def test_what_is_written_is_what_was_observed(
    example: Example, artefact: Artefact, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a folder, without one, and read again: the same value.

    Read again, a stored kind computes nothing.
    """
    store = Store(tmp_path / "observations")
    first = store.observe(artefact, split, [example.request], quiet=True)[example.request]
    alone = Store().observe(artefact, split, [example.request], quiet=True)[example.request]
    if example.request.stored:
        monkeypatch.setattr(type(example.request), "observe", None)
    again = store.observe(artefact, split, [example.request], quiet=True)[example.request]
    assert equal(first, alone) and equal(first, again)


def test_several_requests_at_once_are_each_alone(example: Example, artefact: Artefact, split: Split) -> None:
    """Requests of two roles, observed together, have the values that each has by itself."""
    requests = [example.request]
    if "role" in example.variants:
        requests.append(dataclasses.replace(example.request, role="holdout"))
    together = Store().observe(artefact, split, requests, quiet=True)
    for request in requests:
        assert equal(together[request], Store().observe(artefact, split, [request], quiet=True)[request])


def test_an_artefact_of_another_task_is_refused(
    example: Example, language: Artefact, image: Artefact
) -> None:
    wrong = language if example.task == "image" else image
    with pytest.raises(
        ConfigError, match=rf"the task '{wrong.task.name}' cannot give {type(example.request).__name__}"
    ):
        Store().observe(wrong, PICTURES, [example.request], quiet=True)


def test_class_scores_are_those_of_a_plain_forward(image: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of any size, with fixed statistics of the batch normalisation."""
    monkeypatch.setattr("unremember.observe.kinds.class_scores._IMAGES", 2)
    image.model.train()
    scores = Store().observe(image, PICTURES, [ClassScores("forget")], quiet=True)[ClassScores("forget")]
    with torch.no_grad():
        expected = image.model.eval()(torch.from_numpy(np.stack([row["input"] for row in IMAGES[:3]])))
    assert scores.shape == (3, 3) and scores.dtype == np.float32
    assert np.allclose(scores, expected.numpy(), atol=1e-6)


def test_a_generation_of_no_stated_limit_is_as_long_as_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Generations("forget").tokens == 200 and Generations("forget").key(LANGUAGE) == Generations(
        "forget", 200
    ).key(LANGUAGE)
    monkeypatch.setattr("unremember.observe.kinds.generations.LIMIT", 4)
    assert Generations("forget").tokens == 4
