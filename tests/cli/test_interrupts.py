"""Ctrl-C and kill -9: the same command carries on, and ends with the weights of an undisturbed run."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from shell import WORLD, ran, run_json, shell, weights

from unremember.engine.stage import Stage

STEPS = 60
WORDS = [
    WORLD,
    "--method",
    "npo",
    "--blend",
    "pcgrad",
    f"max_steps={STEPS}",
    "batch_size=8",
    "lr=1e-3",
    "checkpoint_seconds=0",
]
COMMAND = [sys.executable, "-m", "unremember"]
INTERRUPTED = "unremember: interrupted: the same command carries on from the last checkpoint"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def steps(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


@pytest.fixture(scope="module")
def calm(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the undisturbed run's weights."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    ran("forget", "-m", runs / "original", "-o", folder, *WORDS)
    assert steps(folder) == STEPS
    return weights(folder)


@pytest.mark.parametrize(
    ("blow", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["ctrl-c", "kill -9"]
)
def test_the_same_command_carries_on(
    blow: signal.Signals, code: int, runs: Path, calm: str, tmp_path: Path
) -> None:
    words = ["forget", "-m", str(runs / "original"), "-o", str(tmp_path / "run"), *WORDS]
    process = subprocess.Popen(
        [*COMMAND, *words], env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while steps(tmp_path / "run") < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(blow)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and 5 <= steps(tmp_path / "run") < STEPS
    assert (
        out == ""
        and run_json(tmp_path / "run")["status"] == "running"
        and not (tmp_path / "run" / "model").exists()
    )
    if blow != signal.SIGKILL:
        assert err.strip() == INTERRUPTED
        (newest,) = (tmp_path / "run" / "checkpoint").iterdir()
        assert int(newest.name) == steps(tmp_path / "run"), "no step is lost"
        assert not (tmp_path / "run" / "lock").exists() and not list(tmp_path.rglob("*.partial"))
    done = [
        json.loads(line)["step"]
        for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
        if line.endswith("}")
    ]
    ran(*words)
    assert weights(tmp_path / "run") == calm, "bit for bit"
    log = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log == list(range(1, STEPS + 1)) and done == list(range(1, len(done) + 1))


def test_sigterm_ends_a_run_as_ctrl_c_does(
    runs: Path, calm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, run = ["forget", "-m", runs / "original", "-o", tmp_path / "run", *WORDS], tmp_path / "run"
    whole = Stage.step

    def step(stage: Stage, seed: int) -> object:
        if stage.position == 6:
            signal.raise_signal(signal.SIGTERM)
        return whole(stage, seed)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "step", step)
        outcome = shell(*words)
    assert (outcome.code, outcome.out, outcome.err.strip()) == (143, "", INTERRUPTED)
    assert steps(run) == 7 and [path.name for path in (run / "checkpoint").iterdir()] == ["000000007"]
    assert not (run / "lock").exists() and not list(run.rglob("*.partial"))
    ran(*words)
    assert weights(run) == calm


def test_sigterm_leaves_no_temporary_folder_of_an_audit(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def observe(*_: object) -> None:
        assert (runs / "original" / "lock").exists() and list(tmp_path.iterdir())
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("unremember.runs.compare.observe_model", observe)
    outcome = shell("audit", "-m", runs / "original", WORLD)
    assert (outcome.code, outcome.out, outcome.err.strip()) == (143, "", INTERRUPTED)
    assert not (runs / "original" / "lock").exists() and not list(tmp_path.iterdir())


def test_a_disk_that_refuses_to_write(runs: Path, calm: str, tmp_path: Path) -> None:
    """The system itself refuses files above 100 kB: the first checkpoint does not fit."""
    words = ["forget", "-m", str(runs / "original"), "-o", str(tmp_path / "run"), *WORDS]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    done = subprocess.run(
        [*COMMAND, *words], env=ONE_THREAD, capture_output=True, text=True, preexec_fn=limit
    )
    assert (
        done.returncode == 2
        and done.stdout == ""
        and done.stderr.count("\n") == 1
        and "MB free" in done.stderr
    ), done.stderr
    assert not (tmp_path / "run" / "model").exists()
    ran(*words)
    assert weights(tmp_path / "run") == calm


def test_an_interrupted_run_is_no_model_yet(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unremember.engine.stage.Stage.step", interrupted)
        outcome = shell("forget", "-m", runs / "original", "-o", tmp_path / "run", *WORDS)
    assert (
        outcome.code == 130
        and "interrupted" in outcome.err
        and run_json(tmp_path / "run")["kind"] == "forget"
    )
    assert "is not finished" in shell("compare", tmp_path / "run", WORLD, "-o", tmp_path / "out").refused()
    assert not (tmp_path / "out").exists()
