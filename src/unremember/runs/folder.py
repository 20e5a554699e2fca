"""A run is a folder: run.json, log.jsonl, checkpoint/ and model/, and what was measured of it.

An audit adds observations/, measurements.json, comparison.json and report.html; an attack adds
``attack-NAME.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unremember import api
from unremember.data.split import Split
from unremember.engine.log import LOG, read_log
from unremember.errors import ConfigError, ModelError, RunError, one_line
from unremember.files import file_digest, read_verified, remove_unused_sums, write_text
from unremember.models.load import resolve_model_folder, silence_libraries
from unremember.processes import is_main_process, value_of_main_process, wait_for_all_processes
from unremember.registry import benchmarks
from unremember.report.model_card import model_card
from unremember.runs.config import RunConfig
from unremember.runs.inputs import model_files, named_paths
from unremember.runs.record import RUN_FILE, RoleRecord, RunDigests, RunKind, RunRecord, read_record
from unremember.tasks.artefact import Artefact, load_artefact

MODEL = "model"


def notice(line: str) -> None:
    """Print a remark on stderr: stdout is for results."""
    print(one_line(line), file=sys.stderr)


def split_of(data: Any) -> Split:
    """Return the rows of a benchmark, given by name or ``{"name": …, parameters}``."""
    return benchmarks.make(data).split()


def model_folder(name: str) -> str:
    """Return ``model/`` of a run folder, or the name itself where it is a model folder or a hub name.

    Raises:
        ModelError: The run has no model yet, or the folder holds other files than the run wrote.
    """
    folder = finished_folder(name)
    check_model(Path(folder), model_files(Path(folder)))
    return folder


def finished_folder(name: str) -> str:
    """Return what ``model_folder`` does, without a look at its files.

    Raises:
        ModelError: The run has no model yet.
    """
    folder = resolve_model_folder(name)
    if folder != Path(name):
        return str(folder)
    if record := read_record(name):
        end = f"failed ({record.error})" if record.status == "failed" else "is not finished"
        raise ModelError(f"the run {name} {end}: give its command again, and it carries on")
    return name


def check_model(folder: Path, digests: Mapping[str, str]) -> None:
    """Raise ModelError where a run's ``model/`` holds other files than the run wrote.

    A folder that is not a run's passes, and so does that of a run that recorded no files.

    Args:
        folder: The model folder.
        digests: SHA-256 (hex) of its files, by name.
    """
    record = read_record(folder.parent) if folder.name == MODEL else None
    if record is None or not (recorded := record.digests.files):
        return
    present = {f"{MODEL}/{name}": digest for name, digest in digests.items()}
    expected = {name: digest for name, digest in recorded.items() if name.startswith(f"{MODEL}/")}
    if changed := sorted(dict(present.items() ^ expected.items())):
        weights = next((name for name in changed if name.endswith(".safetensors")), "")
        what = f"{folder.parent / changed[0]} is not that of this run"
        if weights:
            what = f"the weights in {folder.parent / weights} are not those of this run"
        raise ModelError(f"{what}: delete {folder} and give the command of the run again")


def artefact_of(name: str, template: str | Mapping[str, Any] = "") -> Artefact:
    """Load the model of a run folder, a model folder or a hub name, with its task.

    Args:
        name: The folder or the hub name.
        template: A prompt template in place of the recorded one; "" for the recorded one.

    Raises:
        ModelError: There is no such model, or its folder holds other files than the run wrote.
    """
    model_folder(name)
    return unverified_artefact(name, template)


def unverified_artefact(name: str, template: str | Mapping[str, Any] = "") -> Artefact:
    """Load a model as ``artefact_of`` does, where ``input_digests`` checked its files already."""
    record, folder = read_record(name), finished_folder(name)
    recorded = record.config.template if record else ""
    return load_artefact(folder, template or recorded or None)


def run_store(name: str) -> Path | None:
    """Return where the observations of a run are kept; None for a model that is not in a run folder."""
    return Path(name) / "observations" if read_record(name) else None


def input_digests(config: RunConfig) -> dict[str, str]:
    """Hash the files that a configuration names beside its data.

    Returns:
        By key (``model``, ``method.alternates`` …), SHA-256 (hex) of a file, or of the files of a model.

    Raises:
        ModelError: The folder of a run holds other model files than the run wrote.
    """
    digests = {}
    for key, path in named_paths(config):
        folder = resolve_model_folder(path)
        if path.is_file():
            digests[key] = file_digest(path)
        elif not (folder / RUN_FILE).exists():  # a run without a model has none to be hashed
            files = model_files(folder)
            check_model(folder, files)
            digests[key] = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return digests


def find_finished(
    folder: Path, kind: RunKind, config: RunConfig, split: Split, inputs: Mapping[str, str]
) -> RunRecord | None:
    """Return the record where this very run is finished already, and say so; else None.

    Args:
        split: The data of the configuration.
        inputs: What ``input_digests`` returns for it.

    Raises:
        ConfigError: The folder holds another run, or one that began with other inputs.
        ModelError: The model in the folder is not the one that the run wrote.
    """
    record = read_record(folder)
    if record is None:
        return None
    if not record.is_of(kind, config):
        raise ConfigError(
            f"{folder} holds another run (see its {RUN_FILE}): choose another --out, or delete the folder"
        )
    if changes := changed_inputs(record, split, inputs):
        raise ConfigError(f"{folder}: {'; '.join(changes)}; choose another --out, or delete the folder")
    if record.status != "finished" or not (folder / MODEL).is_dir():
        return None
    check_model(folder / MODEL, model_files(folder / MODEL))
    notice(f"{folder} is finished already")
    return record


def changed_inputs(record: RunRecord, split: Split, inputs: Mapping[str, str]) -> list[str]:
    """Say which inputs of a run are no longer what they were; what was not recorded is not compared."""
    recorded = record.digests
    changes = [
        f"{key} changed: its files are not those that the run began with"
        for key, digest in inputs.items()
        if recorded.inputs.get(key, digest) != digest
    ]
    if recorded.data and recorded.data != split.digest:
        before = {role: (entry.rows, entry.digest) for role, entry in record.roles.items()}
        now = {name: (len(role), role.digest) for name, role in split.roles.items()}
        roles = sorted(role for role in before.keys() | now.keys() if before.get(role) != now.get(role))
        counts = (
            f"{role} ({before.get(role, (0,))[0]} rows, now {now.get(role, (0,))[0]})" for role in roles
        )
        changes.append(f"data changed: {', '.join(counts)}")
    return changes


def carry_out(
    folder: Path,
    kind: RunKind,
    config: RunConfig,
    start: Artefact,
    split: Split,
    inputs: Mapping[str, str],
    work: Callable[[], Artefact],
) -> RunRecord:
    """Do the work of a run and record it, from ``running`` to ``finished`` or ``failed``.

    A run that fails before its first step leaves nothing behind.

    Args:
        start: The artefact that the work begins with, and may change in place.
        inputs: What ``input_digests`` returned before it was loaded.
        work: Trains or forgets, and returns the resulting artefact.
    """
    began = time.monotonic()
    settings = json.dumps(config.model_dump(mode="json")["settings"], sort_keys=True)
    digests = RunDigests(
        inputs=dict(inputs),
        start=start.weights,
        data=split.digest,
        task=start.task.digest,
        settings=hashlib.sha256(settings.encode()).hexdigest(),
    )
    roles = {name: RoleRecord(rows=len(role), digest=role.digest) for name, role in split.roles.items()}
    record = RunRecord(
        kind=kind, status="running", config=config, versions=api.versions(), digests=digests, roles=roles
    ).write(folder)
    try:
        artefact = work()
        ends = {"artefact": artefact.digest, "weights": artefact.weights, "task": artefact.task.digest}
        silence_libraries()
        if is_main_process():
            artefact.save(folder / MODEL)
    except Exception as error:
        record_failure(folder, record, error)
        raise
    files = value_of_main_process(written_files(folder) if is_main_process() else {})
    finished = record.model_copy(
        update={
            "status": "finished",
            "digests": digests.model_copy(update={**ends, "files": files}),
            "seconds": round(time.monotonic() - began, 1),
        }
    ).write(folder)
    write_card(folder)
    wait_for_all_processes()
    return finished


def written_files(folder: Path) -> dict[str, str]:
    """Hash what a run ends with: SHA-256 (hex) of its log and of its model's files, by path in its folder."""
    log = folder / LOG
    model = {f"{MODEL}/{name}": digest for name, digest in model_files(folder / MODEL).items()}
    return {**model, **({LOG: file_digest(log)} if log.exists() else {})}


def record_failure(folder: Path, record: RunRecord, error: Exception) -> None:
    """Record why a run failed; where it took no step, remove what it left."""
    if not is_main_process():
        return
    log = folder / LOG
    if log.exists() and log.stat().st_size:
        line = one_line(error) or type(error).__name__
        with contextlib.suppress(RunError):  # a full disk: the error that the user sees is the run's own
            record.model_copy(update={"status": "failed", "error": line}).write(folder)
        return
    for name in (RUN_FILE, LOG):
        (folder / name).unlink(missing_ok=True)
    for name in ("reference", "checkpoint"):
        shutil.rmtree(folder / name, ignore_errors=True)
    remove_unused_sums(folder)


def steps_taken(folder: str | Path) -> int:
    """Return the last step in a run's log; 0 where there is none.

    Raises:
        RunError: The log is corrupt.
    """
    record, log = read_record(folder), Path(folder) / LOG
    recorded = record.digests.files.get(LOG) if record and record.status == "finished" else None
    if recorded and log.exists() and file_digest(log) != recorded:
        raise RunError(
            f"{log} is corrupt, it is not what the run wrote: delete it; the model is not concerned"
        )
    steps = [row["step"] for row in read_log(log)]
    return steps[-1] if steps else 0


def write_card(folder: Path) -> None:
    """Write the model card of a forget run from what its folder holds now."""
    record = read_record(folder)
    if record is None or record.kind != "forget" or not (folder / MODEL).is_dir():
        return
    measured = folder / "measurements.json"
    measurements = _read_measured(measured) if measured.exists() else []
    attacks = {
        file.stem.removeprefix("attack-"): _read_measured(file) for file in folder.glob("attack-*.json")
    }
    write_text(folder / MODEL / "README.md", model_card(record.tree(), measurements, attacks))


def _read_measured(file: Path) -> Any:
    """Read a JSON file of measurements. Raises RunError where it is corrupt."""
    command = "attack" if file.name.startswith("attack-") else "audit"
    remedy = f"delete it, and measure again with `unremember {command}`"
    content = read_verified(file, remedy)
    try:
        return json.loads(content)
    except ValueError as error:
        raise RunError(f"{file} cannot be read ({error}): {remedy}") from error
