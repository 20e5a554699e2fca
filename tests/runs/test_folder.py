"""The record of a run: its schema, migration of the first one, and what a failure leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from unremember import api
from unremember.errors import Collapsed, ConfigError, DataError, ModelError
from unremember.models.digest import weights_digest
from unremember.models.load import load_model
from unremember.runs.config import RunConfig, parse_config
from unremember.runs.folder import RunRecord, artefact_of, read_record, steps_taken
from unremember.runs.forget import run_forget
from unremember.runs.train import run_train
from unremember.tasks.artefact import load_artefact

QUICK = {"max_steps": 4, "batch_size": 4, "lr": 1e-2, "checkpoint_seconds": 0}


def train_config(start: str, data: Any, **more: Any) -> RunConfig:
    return parse_config({"model": start, "data": data, **QUICK, **more})


@pytest.fixture(scope="module")
def original(start: str, data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "original"
    run_train(train_config(start, data), folder)
    return folder


def test_a_record_holds_what_a_run_was(original: Path, start: str, data: Any) -> None:
    record = read_record(original)
    assert record is not None and record.config == train_config(start, data)
    artefact = load_artefact(original / "model")
    digests = record.digests
    assert (digests.artefact, digests.weights) == (artefact.digest, artefact.weights)
    assert digests.start == weights_digest(load_model(start)) != digests.weights
    assert digests.task == artefact.task.digest and len(digests.settings) == len(digests.data) == 64
    assert (record.kind, record.status, record.error) == ("train", "finished", "") and record.seconds > 0
    tree = json.loads((original / "run.json").read_text())
    assert tree["schema"] == 2 and RunRecord.model_validate(tree) == record
    assert {role: entry.rows for role, entry in record.roles.items()} == {"forget": 8, "retain": 12}


def test_a_run_returns_its_record_and_a_finished_one_returns_it_again(
    original: Path, start: str, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "train", None)
    assert run_train(train_config(start, data), original) == read_record(original)


def test_a_model_is_asked_with_the_template_that_it_was_trained_with(original: Path, start: str) -> None:
    for name in (start, str(original)):
        assert artefact_of(name).task.template.prompt == "{question}\n"
        assert artefact_of(name, "Q: {question}\n").task.template.prompt == "Q: {question}\n"


def old_record(folder: Path, **changes: Any) -> dict[str, Any]:
    """Give a run folder the record of the first schema."""
    record = read_record(folder)
    assert record is not None
    tree = record.tree()
    config = {**tree["config"], "retain": "kl"}
    del config["retain_loss"]
    old = {
        "kind": "train",
        "config": config,
        "versions": tree["versions"],
        "hashes": {"data": tree["digests"]["data"], "start": tree["digests"]["start"]},
        "roles": tree["roles"],
        "digest": tree["digests"]["weights"],
        "seconds": 1.5,
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(old))
    return old


def test_a_record_of_the_first_schema_is_migrated(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "run")
    old = old_record(tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert record is not None and (record.status, record.seconds) == ("finished", 1.5)
    assert record.config.retain_loss == "kl" and record.digests.weights == old["digest"]
    assert (record.digests.start, record.digests.data, record.digests.artefact) == (
        old["hashes"]["start"],
        old["hashes"]["data"],
        "",
    )
    assert record.roles["forget"].rows == 8 and record.tree()["schema"] == 2
    (tmp_path / "run" / "model" / "task.json").unlink()
    config = {**old["config"], "template": "Old: {question}\n"}
    old_record(tmp_path / "run", config=config)
    assert artefact_of(str(tmp_path / "run")).task.template.prompt == "Old: {question}\n"
    del old["digest"], old["seconds"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(old))
    unfinished = read_record(tmp_path / "run")
    assert unfinished is not None and unfinished.status == "running"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"nothing": 1}}, r"make the run again in another folder with `unremember train …`"),
        ({"kind": "forget", "config": {"lr": 1}}, r"with `unremember forget …`"),
        ({"kind": "other"}, "delete that folder or choose another"),
        ({"schema": 3}, "with `unremember train …`"),
    ],
)
def test_a_record_that_cannot_be_migrated_names_the_command(
    changes: dict[str, Any], message: str, original: Path, tmp_path: Path
) -> None:
    shutil.copytree(original, tmp_path / "run")
    old_record(tmp_path / "run", **changes)
    with pytest.raises(ConfigError, match=message) as refusal:
        read_record(tmp_path / "run")
    assert "\n" not in str(refusal.value)


def forget_config(original: Path, data: Any, **more: Any) -> RunConfig:
    return parse_config({"model": str(original), "data": data, "method": "npo", **QUICK, **more})


def test_a_failure_after_the_first_step_is_recorded_and_resumed(
    original: Path, data: Any, tmp_path: Path
) -> None:
    config = forget_config(original, data)
    calm = run_forget(config, tmp_path / "calm")

    def fail(model: Any, step: int) -> None:
        if step == 2:
            raise DataError("the disk\nwent away")

    with pytest.raises(DataError):
        run_forget(config, tmp_path / "run", fail, every=1)
    record = read_record(tmp_path / "run")
    assert record is not None and (record.status, record.error) == ("failed", "the disk went away")
    assert record.digests.weights == "" and steps_taken(tmp_path / "run") == 2
    with pytest.raises(ModelError, match=r"failed \(the disk went away\): give its command again"):
        artefact_of(str(tmp_path / "run"))
    again = run_forget(config, tmp_path / "run")
    assert (again.status, again.error, again.digests) == ("finished", "", calm.digests)
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4]


def test_a_failure_at_the_save_is_resumed_too(
    original: Path, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = forget_config(original, data)
    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedModel.save_pretrained", None)
        with pytest.raises(TypeError):
            run_forget(config, tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert record is not None and record.status == "failed" and "NoneType" in record.error
    assert run_forget(config, tmp_path / "run").status == "finished"


def test_a_collapse_is_a_failure_with_its_steps(original: Path, data: Any, tmp_path: Path) -> None:
    config = forget_config(
        original, data, method="gradient_ascent", lr=1e30, warmup=0, clip=0, weight_decay=0, max_steps=30
    )
    with pytest.raises(Collapsed):
        run_forget(config, tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert record is not None and record.status == "failed" and "not finite" in record.error


@pytest.mark.parametrize("place", ["unremember.api.check_needs", "unremember.engine.stage.Stage.step"])
def test_a_failure_before_the_first_step_leaves_nothing(
    place: str, original: Path, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the log was begun, without a line."""

    def fail(*given: Any, **named: Any) -> None:
        raise DataError("nothing here")

    monkeypatch.setattr(place, fail)
    with pytest.raises(DataError):
        run_forget(forget_config(original, data), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("not the run's")
    with pytest.raises(DataError):
        run_forget(forget_config(original, data), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_a_folder_of_another_run_is_refused(original: Path, start: str, data: Any) -> None:
    with pytest.raises(ConfigError, match="holds another run"):
        run_train(train_config(start, data, seed=5), original)
    with pytest.raises(ConfigError, match="holds another run"):
        run_forget(forget_config(original, data), original)


def test_training_through_adapters_moves_what_they_reach_alone(start: str, data: Any, tmp_path: Path) -> None:
    """``selection`` is used by train: adapters leave the embeddings as they were."""
    run_train(train_config(start, data, selection={"name": "lora", "rank": 2}), tmp_path / "lora")
    before, after = load_model(start).state_dict(), load_model(tmp_path / "lora" / "model").state_dict()
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and all("proj" in name for name in moved) and before.keys() == after.keys()


@pytest.mark.parametrize(
    ("run", "keys", "message"),
    [
        (run_train, {"blend": "pcgrad"}, "a train run does not use blend"),
        (run_train, {"selection": "loar"}, "did you mean 'lora'"),
        (run_forget, {"without": ["forget"]}, "a forget run does not use without"),
        (run_forget, {"method": "gu", "blend": "pcgrad"}, "blend is what makes this method"),
    ],
)
def test_what_a_run_cannot_use_is_refused_before_anything_is_loaded(
    run: Any, keys: dict[str, Any], message: str, data: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(parse_config({"model": "nowhere/at/all", "data": data, **keys}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
