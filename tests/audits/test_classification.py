"""Accuracy by hand, and on a classifier that was trained.

With and without the class that is to be forgotten.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from handmade import card, question_rows

import unremember as un
from unremember.audits.classification import Accuracy, RetainedAccuracy
from unremember.audits.controls import default_audits
from unremember.data.split import Split, make_split
from unremember.observe.kinds.class_scores import ClassScores
from unremember.observe.records import Observations
from unremember.tasks.artefact import Artefact
from unremember.tasks.image import ImageTask

SCORES = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.5, 0.0, 3.0], [0.0, 1.0, 0.0]], dtype=np.float32)


def images(labels: list[int], first: int = 0) -> list[dict[str, Any]]:
    return [
        {"input": np.full(2, first + i, dtype=np.float32), "label": label} for i, label in enumerate(labels)
    ]


def scored(split: Split, scores: dict[str, np.ndarray], artefact: str = "a") -> Observations:
    return Observations(
        artefact, artefact, split, {ClassScores(role): value for role, value in scores.items()}
    )


def test_accuracy_by_hand() -> None:
    """The greatest scores say 0, 1, 2, 1: three of four labels."""
    split = make_split({"forget": images([0, 1, 2, 2]), "retain": images([0, 0, 1, 1], 10)})
    figure = Accuracy().measure(scored(split, {"forget": SCORES}), [])
    assert figure.value == 0.75 and figure.per_example.tolist() == [1, 1, 1, 0]
    assert (figure.higher_is, figure.n, figure.data) == ("more_knowledge", 4, split["forget"].digest)


def test_retained_accuracy_by_hand() -> None:
    """Over the images of all utility roles; of the retain set where the split names none."""
    roles = {"forget": images([0]), "retain": images([0, 0, 1, 1], 10), "far": images([0], 20)}
    split = make_split(roles)
    figure = RetainedAccuracy().measure(scored(split, {"retain": SCORES}), [])
    assert figure.value == 0.5 and figure.higher_is == "better_utility"
    named = make_split(roles, utility=("retain", "far"))
    assert RetainedAccuracy().requests(named) == [ClassScores("retain"), ClassScores("far")]
    pooled = RetainedAccuracy().measure(scored(named, {"retain": SCORES, "far": SCORES[:1]}), [])
    assert pooled.value == 3 / 5 and pooled.n == 5


def test_a_classifier_of_nans_has_no_value() -> None:
    split = make_split({"forget": images([0, 1, 2, 2])})
    figure = Accuracy().measure(scored(split, {"forget": np.full((4, 3), np.nan, dtype=np.float32)}), [])
    assert figure.value is None and figure.skipped == {"no value": 4}


def test_they_apply_to_images_alone() -> None:
    texts = make_split({"forget": question_rows(2, 2), "holdout": question_rows(2, 2)}, utility=("holdout",))
    pictures = make_split({"forget": images([0, 1]), "retain": images([0], 10)})
    assert Accuracy().requests(texts) == [] == RetainedAccuracy().requests(texts)
    assert {type(audit) for audit in default_audits(pictures)} == {Accuracy, RetainedAccuracy}
    assert not {Accuracy, RetainedAccuracy} & {type(audit) for audit in default_audits(texts)}
    assert RetainedAccuracy().requests(make_split({"forget": images([0])})) == []


@pytest.fixture(scope="module")
def world() -> tuple[Split, dict[str, Artefact]]:
    """Four clouds of points, the fourth to be forgotten: the original and two oracles that never saw it."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    centres = 3 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    rows = {
        label: [
            {"input": (centres[label] + rng.normal(0, 0.5, 2)).astype(np.float32), "label": label}
            for _ in range(20)
        ]
        for label in range(4)
    }
    split = make_split({"forget": rows[3], "retain": rows[0] + rows[1] + rows[2]})
    artefacts = {}
    for name, seed, without in (
        ("original", 0, ()),
        ("oracle", 1, ("forget",)),
        ("oracle 2", 2, ("forget",)),
    ):
        torch.manual_seed(seed)
        start = Artefact(
            torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)), ImageTask()
        )
        artefacts[name] = un.train(
            start, split, without=without, epochs=30, batch_size=16, lr=1e-2, seed=seed, quiet=True
        )
    return split, artefacts


def test_original_and_retrained_are_told_apart(world: tuple[Split, dict[str, Artefact]]) -> None:
    split, artefacts = world
    twin = artefacts["original"].copy()
    with torch.no_grad():
        next(twin.model.parameters()).mul_(1.0 + 2**-10)
    controls = {"oracle": [artefacts["oracle"], artefacts["oracle 2"]], "original": artefacts["original"]}
    accuracy, retained = un.audit(twin, split, **controls, quiet=True)
    assert (accuracy.name, accuracy.verdict) == ("accuracy", "under-forgotten") and accuracy.value > 0.9
    assert max(accuracy.controls["oracle"]) < 0.1 and accuracy.position == pytest.approx(1, abs=0.1)
    assert (retained.name, retained.verdict) == ("retained_accuracy", "measured") and retained.value > 0.9


def test_a_classifier_that_lost_what_it_retains_is_never_cleared() -> None:
    split = make_split({"forget": images([0, 1, 2, 2]), "retain": images([0, 1, 2, 1], 10)})
    right, wrong = SCORES, -SCORES
    original = scored(split, {"forget": right, "retain": right}, "original")
    oracles = [scored(split, {"forget": wrong, "retain": right}, name) for name in ("oracle", "oracle 2")]
    wreck = scored(split, {"forget": wrong, "retain": wrong}, "wreck")
    figures = card([Accuracy(), RetainedAccuracy()], wreck, oracles, original)
    assert figures[0].verdict == "undetermined" and "the model collapsed" in figures[0].note
