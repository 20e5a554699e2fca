"""The record of a run: its schema, migration of the first one, and what a failure leaves."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unremember import api
from unremember.errors import Collapsed, ConfigError, DataError, ModelError, RunError
from unremember.files import SUMS
from unremember.models.digest import weights_digest
from unremember.models.load import load_model
from unremember.runs.attack import run_attack
from unremember.runs.audit import run_audit
from unremember.runs.compare import run_comparison
from unremember.runs.config import RunConfig, parse_config
from unremember.runs.folder import artefact_of, steps_taken
from unremember.runs.forget import run_forget
from unremember.runs.push import run_push
from unremember.runs.record import RunRecord, read_record
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
    """Give a run folder the record of the first schema, which had no digests of files."""
    (folder / SUMS).unlink(missing_ok=True)
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


def own_copies(start: str, data: Any, folder: Path) -> tuple[str, dict[str, Any]]:
    """Copies of a model folder and of the data that a test may change."""
    shutil.copytree(start, folder / "start")
    roles = {}
    for role, file in data["roles"].items():
        roles[role] = str(shutil.copy(file, folder / f"{role}.json"))
    return str(folder / "start"), {**data, "roles": roles}


def drop_a_row(folder: Path) -> None:
    rows = json.loads((folder / "forget.json").read_text())
    (folder / "forget.json").write_text(json.dumps(rows[1:]))


def move_a_weight(folder: Path) -> None:
    model = load_artefact(folder / "start")
    next(model.model.parameters()).data[0, 0] += 1
    model.save(folder / "start")


def stretch_positions(folder: Path) -> None:
    config = folder / "start" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e', '"rms_norm_eps": 2e'))


CHANGES = {
    "data": (drop_a_row, r"data changed: forget \(8 rows, now 7\); choose another --out, or delete"),
    "weights": (move_a_weight, "model changed: its files are not those that the run began with; choose"),
    "configuration": (stretch_positions, "model changed: its files"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("stop", [0, 2], ids=["finished", "interrupted"])
def test_a_run_whose_inputs_changed_is_refused(
    stop: int, change: str, start: str, data: Any, tmp_path: Path
) -> None:
    model, rows = own_copies(start, data, tmp_path)
    config = parse_config({"model": model, "data": rows, "method": "npo", **QUICK})

    def interrupt(model: Any, step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run_forget(config, tmp_path / "run", interrupt, every=1)
    before = read_record(tmp_path / "run")
    damage, message = CHANGES[change]
    damage(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run_forget(config, tmp_path / "run")
    assert read_record(tmp_path / "run") == before


def test_a_changed_file_of_a_part_is_refused(original: Path, data: Any, tmp_path: Path) -> None:
    """What a method reads beside the data: here the second model of ``whp``."""
    shutil.copytree(original, tmp_path / "reinforced")
    method = {"name": "whp", "reinforced": str(tmp_path / "reinforced" / "model")}
    config = forget_config(original, data, method=method)
    record = run_forget(config, tmp_path / "run")
    assert record.digests.inputs.keys() == {"model", "method.reinforced"}
    assert run_forget(config, tmp_path / "run") == record
    (tmp_path / "reinforced" / "model" / "task.json").write_text("{}")
    (tmp_path / "reinforced" / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"run: method\.reinforced changed"):
        run_forget(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", r"the weights in .*model\.safetensors are not those of this run: delete"),
        ("config.json", r"model/config\.json is not that of this run"),
        ("tokenizer.json", r"model/tokenizer\.json is not that of this run"),
        ("adapter_config.json", r"model/adapter_config\.json is not that of this run"),
    ],
)
def test_a_model_that_is_not_the_runs_is_refused_wherever_it_is_read(
    name: str, message: str, original: Path, start: str, data: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(original, run)
    before = (run / "model" / name).read_bytes() if (run / "model" / name).exists() else b""
    (run / "model" / name).write_bytes(before + b" ")
    readings: list[Callable[[], Any]] = [
        lambda: run_train(train_config(start, data), run),
        lambda: run_audit(str(run), parse_config({"data": data})),
        lambda: run_comparison([str(run)], parse_config({"data": data})),
        lambda: run_attack(str(run), {"name": "relearning"}, parse_config({"data": data})),
        lambda: run_push(str(run), "owner/name"),
        lambda: run_forget(forget_config(run, data), tmp_path / "forgot"),
        lambda: artefact_of(str(run / "model")),
    ]
    for read in readings:
        with pytest.raises(ModelError, match=message):
            read()
    assert not (tmp_path / "forgot").exists() and not (run / "lock").exists()
    shutil.rmtree(run / "model")
    again = run_train(train_config(start, data), run)
    assert again.digests == read_record(original).digests, "made again from its last checkpoint"


HOLDER = """
import sys, time
from pathlib import Path
from unremember.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_says_who_holds_the_run_and_a_dead_ones_lock_is_taken_over(
    original: Path, start: str, data: Any, tmp_path: Path
) -> None:
    run, config = tmp_path / "run", parse_config({"data": data})
    shutil.copytree(original, run)
    shutil.rmtree(run / "model")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, run], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    before = (run / "log.jsonl").read_bytes()
    for work in (
        lambda: run_train(train_config(start, data), run),
        lambda: run_audit(str(run), config),
        lambda: run_attack(str(run), {"name": "relearning"}, config),
    ):
        with pytest.raises(
            RunError, match=rf"{run} is in use by process {holder.pid} on {socket.gethostname()}"
        ):
            work()
    assert (run / "log.jsonl").read_bytes() == before
    holder.kill()
    holder.wait()
    assert (run / "lock").exists() and run_train(train_config(start, data), run).status == "finished"
    assert not (run / "lock").exists()


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
