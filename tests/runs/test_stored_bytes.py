"""A flipped bit in any stored file is said in one line, and never becomes another result."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unremember.engine.checkpoint import latest_checkpoint
from unremember.engine.log import StepLog
from unremember.engine.reference import is_cached
from unremember.errors import RunError, UnrememberError
from unremember.files import read_verified, record_digest, write_recorded
from unremember.observe.store import Store
from unremember.report.comparison import Comparison
from unremember.runs.attack import run_attack
from unremember.runs.audit import run_audit
from unremember.runs.config import parse_config
from unremember.runs.folder import artefact_of, steps_taken, write_card
from unremember.runs.forget import run_forget
from unremember.runs.record import read_record

FLIPS = 16
"""Places in each file."""


@pytest.fixture(scope="module")
def run(start: str, data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that holds every stored kind of file."""
    folder = tmp_path_factory.mktemp("runs") / "npo"
    settings = {"max_steps": 4, "batch_size": 4, "lr": 1e-2}
    run_forget(parse_config({"model": start, "data": data, "method": "npo", **settings}), folder)
    config = parse_config({"data": data})
    run_audit(str(folder), config, audits=["probability", "extraction_strength"])
    run_attack(str(folder), {"name": "quantisation", "bits": [8]}, config, audits=["probability"])
    return folder


def read_run(folder: Path) -> str:
    record = read_record(folder)
    assert record is not None
    return record.model_dump_json()


def resume_log(folder: Path) -> str:
    flat = latest_checkpoint(folder / "checkpoint")
    assert flat is not None
    return StepLog(folder / "log.jsonl", flat["position"], flat["log"]).digest


def read_observations(folder: Path) -> Any:
    files = sorted((folder / "observations").glob("*.safetensors"))
    arrays = [Store(folder / "observations").read(file) for file in files]
    return (
        None
        if None in arrays
        else str([{name: each[name].tobytes() for name in sorted(each)} for each in arrays])
    )


def read_reference(folder: Path) -> Any:
    return all(is_cached(file) for file in sorted((folder / "reference").glob("*.npy"))) or None


KINDS: dict[str, Callable[[Path], Any]] = {
    "run.json": read_run,
    "log.jsonl": steps_taken,
    "log.jsonl ": resume_log,
    "measurements.json": write_card,
    "attack-*.json": write_card,
    "comparison.json": lambda folder: Comparison.load(folder / "comparison.json").text(),
    "checkpoint/*/state.*": lambda folder: str(latest_checkpoint(folder / "checkpoint")),
    "reference/*.npy": read_reference,
    "observations/*.safetensors": read_observations,
    "model/*.safetensors": lambda folder: artefact_of(str(folder)).digest,
    "model/*.json": lambda folder: artefact_of(str(folder)).digest,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_said_and_never_used(kind: str, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    files, read = sorted(folder.glob(kind.strip())), KINDS[kind]
    with warnings.catch_warnings(record=True) as notices:
        read(folder)
    assert files and not notices
    for file in files:
        content = file.read_bytes()
        for place in np.linspace(0, len(content) - 1, FLIPS).astype(int):
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(place) % 8
            file.write_bytes(flipped)
            line = said(read, folder)
            assert file.name in line and str(file.parent) in line, f"byte {place}: {line}"
            assert "\n" not in line and ("delete" in line or "anew" in line or "make it again" in line), line
        file.write_bytes(content)


def said(read: Callable[[Path], Any], folder: Path) -> str:
    """Return the refusal of a reading, or the notice of one that takes a file as missing."""
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        try:
            value = read(folder)
        except UnrememberError as error:
            return str(error)
    assert value is None and len(notices) == 1, "a result of flipped bytes"
    return str(notices[0].message)


@pytest.mark.parametrize("where", ["", "observations", "reference", "checkpoint/000000004"])
def test_a_flipped_bit_in_the_digests_changes_no_result(where: str, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    readings = [
        read
        for kind, read in KINDS.items()
        if kind.startswith(where.partition("/")[0] or ("run", "comp")) and "attack" not in kind
    ]
    clean, sums = [read(folder) for read in readings], folder / where / "SHA256SUMS"
    content = sums.read_bytes()
    for place in np.linspace(0, len(content) - 1, FLIPS).astype(int):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(place) % 8
        sums.write_bytes(flipped)
        for read, value in zip(readings, clean, strict=True):
            assert result_of(read, folder) in (value, None)


def result_of(read: Callable[[Path], Any], folder: Path) -> Any:
    """Return what a reading gives; None where it refuses."""
    with warnings.catch_warnings(), contextlib.suppress(RunError):
        warnings.simplefilter("ignore")
        return read(folder)
    return None


def test_a_process_that_dies_between_digest_and_file_leaves_the_earlier_file(tmp_path: Path) -> None:
    file = tmp_path / "measurements.json"
    write_recorded(file, b"first")
    record_digest(file, "0" * 64)
    assert read_verified(file, "") == b"first"
    write_recorded(file, b"second")
    assert read_verified(file, "") == b"second"


def test_a_file_of_an_earlier_version_is_read_with_a_notice(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    for sums in folder.rglob("SHA256SUMS"):
        sums.unlink()
    for kind, read in KINDS.items():
        if not kind.startswith(("model", "log")):
            with pytest.warns(UserWarning, match="they are used unchecked"):
                assert read(folder) == read(run)
