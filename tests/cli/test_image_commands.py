"""An image classifier through the same commands: train, retrain, forget, audit, compare, attack, resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import ran, run_json, shell, weights
from transformers import ResNetConfig, ResNetForImageClassification

from unremember.observe.kinds.class_scores import ClassScores
from unremember.registry import methods
from unremember.runs.folder import artefact_of, read_record

PARTS = '''
"""A method for image classifiers: ascend on the forget images, descend on the retain images."""

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register("image_ascent", needs=("forget", "retain"), cost="1 forward, 1 backward")
def image_ascent(weight: float = 0.3) -> Recipe:
    """Raise the loss of the forget images, and keep that of the retain images low."""
    return Recipe((Term("forget", {"name": "cross_entropy", "sign": -1.0}, weight), Term("retain")))
'''
ASCENT = ["--method", "my_parts:image_ascent", "batch_size=16", "lr=1e-2", "epochs=5", "warmup=0"]


def pictures(seed: int, count: int = 96) -> list[dict[str, Any]]:
    """Four classes of 1×8×8 pictures, as nested lists: a bright quarter in noise."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(count):
        picture, label = 0.3 * torch.randn(1, 8, 8, generator=rng), i % 4
        top, left = 4 * (label // 2), 4 * (label % 2)
        picture[0, top : top + 4, left : left + 4] += 1.5
        rows.append({"input": picture.tolist(), "label": label})
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder: the classifier, the pictures by role, and the method's file."""
    home = tmp_path_factory.mktemp("images")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ResNetConfig(
            num_channels=1,
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            layer_type="basic",
            num_labels=4,
        )
        ResNetForImageClassification(config).save_pretrained(home / "classifier")
    rows = pictures(0)
    roles = {
        "forget": [row for row in rows if row["label"] == 0],
        "retain": [row for row in rows if row["label"]],
    }
    for role, listed in roles.items():
        (home / f"{role}.json").write_text(json.dumps(listed))
    (home / "my_parts.py").write_text(PARTS)
    return home


@pytest.fixture(scope="module")
def data(folder: Path) -> list[str]:
    """The words that name the pictures."""
    return ["-d", "files", *(f"data.roles.{role}={folder / role}.json" for role in ("forget", "retain"))]


@pytest.fixture(scope="module", autouse=True)
def importable(folder: Path) -> Any:
    """The method's file can be imported, here and in processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        methods.load()
        patch.setattr(methods, "entries", dict(methods.entries))
        yield
        sys.modules.pop("my_parts", None)


@pytest.fixture(scope="module")
def runs(folder: Path, data: list[str]) -> Path:
    """The finished runs ``original``, ``oracle`` and ``ascent``."""
    teach = ["epochs=8", "lr=1e-2", "batch_size=16", "warmup=0"]
    ran("train", "-m", folder / "classifier", "-o", folder / "original", *data, *teach)
    ran("train", "-m", folder / "classifier", "-o", folder / "oracle", "--without", "forget", *data, *teach)
    ran("forget", "-m", folder / "original", "-o", folder / "ascent", *data, *ASCENT)
    return folder


def controls(runs: Path) -> list[Any]:
    return ["--original", runs / "original", "--oracle", runs / "oracle"]


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def test_a_classifier_is_trained_retrained_and_forgets(runs: Path, data: list[str]) -> None:
    rows = by_name(ran("audit", "-m", runs / "ascent", *controls(runs), *data, "--json").json)
    assert {"accuracy", "retained_accuracy"} <= rows.keys()
    accuracy, retained = rows["accuracy"], rows["retained_accuracy"]
    assert accuracy["controls"] == {"original": 1.0, "oracle": [0.0]} and accuracy["value"] < 0.2
    assert retained["value"] > 0.9 and retained["controls"]["original"] == 1.0
    assert {row["artefact"] for row in rows.values()} == {run_json(runs / "ascent")["digests"]["artefact"]}
    record = read_record(runs / "ascent")
    assert (
        record is not None and record.digests.task and artefact_of(str(runs / "ascent")).task.name == "image"
    )
    card = (runs / "ascent" / "model" / "README.md").read_text()
    assert "| accuracy |" in card and "my_parts:image_ascent" in card


def test_a_second_audit_runs_no_forward(runs: Path, data: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["audit", "-m", runs / "ascent", *controls(runs), *data, "--json"]
    first = ran(*words).json
    monkeypatch.setattr(ClassScores, "observe", None)
    monkeypatch.setattr(ResNetForImageClassification, "forward", None)
    assert ran(*words).json == first


def test_an_audit_as_a_table(runs: Path, data: list[str]) -> None:
    out = ran("audit", "-m", runs / "ascent", *controls(runs), *data).out
    assert any(line.split()[:1] == ["accuracy"] for line in out.splitlines())


def test_a_comparison_writes_its_report(runs: Path, data: list[str], tmp_path: Path) -> None:
    outcome = ran("compare", runs / "ascent", *controls(runs), *data, "-o", tmp_path / "out")
    assert "accuracy" in outcome.out
    tree = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [artefact["name"] for artefact in tree["artefacts"]] == ["original", "oracle", "ascent"]
    assert tree["samples"] == [] and "my_parts:image_ascent" in {a["method"] for a in tree["artefacts"]}
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f"<b>{name}</b>" in page for name in ("original", "oracle", "ascent"))


@pytest.mark.parametrize(
    ("attack", "keys"),
    [
        ("relearning", ["attack.steps=4", "attack.points=2", "attack.lr=1e-2", "attack.share=0.5"]),
        ("pruning", ["attack.shares=[0.2,0.8]"]),
        ("quantisation", ["attack.bits=[8,2]"]),
    ],
)
def test_a_classifier_is_attacked(attack: str, keys: list[str], runs: Path, data: list[str]) -> None:
    before = weights(runs / "ascent")
    words = ["attack", runs / "ascent", "--attack", attack, *controls(runs), "--audit", "accuracy"]
    rows = ran(*words, *data, *keys, "--json").json
    assert len(rows) >= 2 and json.loads((runs / "ascent" / f"attack-{attack}.json").read_text()) == rows
    for row in rows:
        (measurement,) = row["measurements"]
        assert measurement["controls"].keys() == {"original", "oracle"} and measurement["value"] is not None
    assert f"{attack}: accuracy" in ran(*words, *data, *keys).out
    assert artefact_of(str(runs / "ascent")).weights == before


def test_an_attack_without_audits_measures_what_suits_the_model(runs: Path, data: list[str]) -> None:
    words = ["attack", runs / "ascent", "--attack", "quantisation", *controls(runs), *data, "attack.bits=[4]"]
    names = [row["name"] for row in ran(*words, "--json").json[0]["measurements"]]
    assert names == ["accuracy", "retained_accuracy"]


def test_a_killed_run_is_resumed_to_the_same_weights(runs: Path, data: list[str], tmp_path: Path) -> None:
    words = ["forget", "-m", runs / "original", *data, *ASCENT, "epochs=60", "checkpoint_seconds=0"]
    ran(*words, "-o", tmp_path / "calm")
    command = [sys.executable, "-m", "unremember", *map(str, words), "-o", str(tmp_path / "run")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    log, deadline = tmp_path / "run" / "log.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") > 5:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and run_json(tmp_path / "run")["status"] == "running"
    ran(*words, "-o", tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "calm"), "bit for bit, batch statistics included"


def test_training_moves_the_selected_weights_alone(folder: Path, data: list[str], tmp_path: Path) -> None:
    words = ["--selection", "lora", "selection.targets=[classifier.1]", "selection.rank=2", "max_steps=2"]
    ran("train", "-m", folder / "classifier", "-o", tmp_path / "run", *data, *words, "lr=1e-2")
    before, after = (
        dict(artefact_of(str(name)).model.named_parameters())
        for name in (folder / "classifier", tmp_path / "run")
    )
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"classifier.1.weight"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "npo"], "column 'answer' of role 'forget' (its columns are input, label)"),
        (["--method", "my_parts:image_ascent", "template=chat"], "template"),
        (["--method", "my_parts:nothing"], "cannot import method"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_suit_images_is_one_line(
    words: list[str], message: str, runs: Path, data: list[str], tmp_path: Path
) -> None:
    line = shell("forget", "-m", runs / "original", "-o", tmp_path / "run", *data, *words).refused()
    assert message in line and not (tmp_path / "run").exists()


def test_audits_of_texts_and_training_from_scratch_are_one_line(
    runs: Path, data: list[str], tmp_path: Path
) -> None:
    line = shell("audit", "-m", runs / "ascent", *data, "--audit", "rouge").refused()
    assert "no audit applies" in line
    line = shell("train", "-o", tmp_path / "run", *data).refused()
    assert "start from a model (--model FOLDER" in line and not (tmp_path / "run").exists()
    line = shell("alternates", "-m", runs / "original", "-o", tmp_path / "a.jsonl", *data).refused()
    assert "'question'" in line and not (tmp_path / "a.jsonl").exists()


def test_the_pictures_are_read_as_they_are(runs: Path, folder: Path) -> None:
    """Scores through the files equal the model's own of the same arrays."""
    artefact = artefact_of(str(runs / "original"))
    rows = json.loads((folder / "forget.json").read_text())
    inputs = torch.tensor(np.array([row["input"] for row in rows]), dtype=torch.float32)
    with torch.no_grad():
        assert (artefact.model(inputs).logits.argmax(1) == 0).all()
