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
from typing import Any, Literal, Self

import pydantic

from unremember import api
from unremember.data.split import Split
from unremember.errors import ConfigError, ModelError, RunError, one_line
from unremember.files import write_text
from unremember.models.load import resolve_model_folder, silence_libraries
from unremember.processes import is_main_process, wait_for_all_processes
from unremember.registry import benchmarks
from unremember.report.model_card import model_card
from unremember.runs.config import RunConfig
from unremember.tasks.artefact import Artefact, load_artefact

RUN_FILE = "run.json"
RunKind = Literal["train", "forget"]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", populate_by_name=True)


class RunDigests(_Part):
    """SHA-256 (hex) of what a run began with and ended with; "" for what is not known (yet).

    Args:
        start: The weights that the run began with.
        artefact: The resulting artefact: weights, model configuration, task.
        weights: The resulting weights alone.
        data: All rows of the split, by role.
        task: The task: for text, the tokenizer and the prompt template.
        settings: The settings of the loop.
    """

    start: str = ""
    artefact: str = ""
    weights: str = ""
    data: str = ""
    task: str = ""
    settings: str = ""


class RoleRecord(_Part):
    """How many rows a role has, and the SHA-256 (hex) of their content."""

    rows: int
    digest: str


class RunRecord(_Part):
    """What ``run.json`` holds.

    Args:
        schema_version: The version of this format, stored as ``schema``.
        kind: The command that made the run.
        status: ``running`` also where the run was interrupted; the same command resumes it, or a failed one.
        error: Why the run failed, in one line.
        seconds: How long the run took, from the last time it was started.
    """

    schema_version: Literal[2] = pydantic.Field(default=2, alias="schema")
    kind: RunKind
    status: Literal["running", "finished", "failed"]
    error: str = ""
    config: RunConfig
    versions: dict[str, str] = {}
    digests: RunDigests = RunDigests()
    roles: dict[str, RoleRecord] = {}
    seconds: float = 0.0

    def tree(self) -> dict[str, Any]:
        """Return the record as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)

    def write(self, folder: Path) -> Self:
        """Write the record into a run folder and return it."""
        write_text(folder / RUN_FILE, json.dumps(self.tree(), indent=2))
        return self

    def is_of(self, kind: RunKind, config: RunConfig) -> bool:
        """Return whether this is the record of the run that a command asks for."""
        return self.kind == kind and self.config.model_dump(mode="json") == config.model_dump(mode="json")


def notice(line: str) -> None:
    """Print a remark on stderr: stdout is for results."""
    print(one_line(line), file=sys.stderr)


def split_of(data: Any) -> Split:
    """Return the rows of a benchmark, given by name or ``{"name": …, parameters}``."""
    return benchmarks.make(data).split()


def read_record(folder: str | Path) -> RunRecord | None:
    """Read the record of a run folder; None where there is none.

    Raises:
        ConfigError: ``run.json`` cannot be read, or is of an older version and cannot be migrated.
    """
    file = Path(folder) / RUN_FILE
    if not file.exists():
        return None
    try:
        tree = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): delete that folder or choose another") from error
    try:
        return RunRecord.model_validate(tree if "schema" in tree else migrated(tree))
    except (pydantic.ValidationError, ConfigError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is not a record that this version reads: {remake(tree)}") from error


def migrated(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of version 1 in the present schema: what it did not hold is "" or its default."""
    config = dict(tree["config"])
    if "retain" in config:
        config["retain_loss"] = config.pop("retain")
    hashes = tree.get("hashes", {})
    return {
        "kind": tree["kind"],
        "status": "finished" if "digest" in tree else "running",
        "config": config,
        "versions": tree.get("versions", {}),
        "digests": {
            "start": hashes.get("start", ""),
            "data": hashes.get("data", ""),
            "weights": tree.get("digest", ""),
        },
        "roles": tree.get("roles", {}),
        "seconds": tree.get("seconds", 0.0),
    }


def remake(tree: Mapping[str, Any]) -> str:
    """Return what to do about a record that cannot be read."""
    kind = tree.get("kind")
    if kind not in ("train", "forget"):
        return "delete that folder or choose another"
    return f"make the run again in another folder with `unremember {kind} …`"


def model_folder(name: str) -> str:
    """Return ``model/`` of a run folder, or the name itself where it is a model folder or a hub name.

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


def artefact_of(name: str, template: str | Mapping[str, Any] = "") -> Artefact:
    """Load the model of a run folder, a model folder or a hub name, with its task.

    Args:
        name: The folder or the hub name.
        template: A prompt template in place of the recorded one; "" for the recorded one.
    """
    record, folder = read_record(name), model_folder(name)
    recorded = record.config.template if record else ""
    return load_artefact(folder, template or recorded or None)


def run_store(name: str) -> Path | None:
    """Return where the observations of a run are kept; None for a model that is not in a run folder."""
    return Path(name) / "observations" if read_record(name) else None


def find_finished(folder: Path, kind: RunKind, config: RunConfig) -> RunRecord | None:
    """Return the record where this very run is finished already, and say so; else None.

    Raises:
        ConfigError: The folder holds another run.
    """
    record = read_record(folder)
    if record is None:
        return None
    if not record.is_of(kind, config):
        raise ConfigError(
            f"{folder} holds another run (see its {RUN_FILE}): choose another --out, or delete the folder"
        )
    if record.status != "finished" or not (folder / "model").is_dir():
        return None
    notice(f"{folder} is finished already")
    return record


def carry_out(
    folder: Path,
    kind: RunKind,
    config: RunConfig,
    start: Artefact,
    split: Split,
    work: Callable[[], Artefact],
) -> RunRecord:
    """Do the work of a run and record it, from ``running`` to ``finished`` or ``failed``.

    A run that fails before its first step leaves nothing behind.

    Args:
        start: The artefact that the work begins with, and may change in place.
        work: Trains or forgets, and returns the resulting artefact.
    """
    began = time.monotonic()
    settings = json.dumps(config.model_dump(mode="json")["settings"], sort_keys=True)
    digests = RunDigests(
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
            artefact.save(folder / "model")
    except Exception as error:
        record_failure(folder, record, error)
        raise
    finished = record.model_copy(
        update={
            "status": "finished",
            "digests": digests.model_copy(update=ends),
            "seconds": round(time.monotonic() - began, 1),
        }
    ).write(folder)
    write_card(folder)
    wait_for_all_processes()
    return finished


def record_failure(folder: Path, record: RunRecord, error: Exception) -> None:
    """Record why a run failed; where it took no step, remove what it left."""
    if not is_main_process():
        return
    if steps_taken(folder):
        line = one_line(error) or type(error).__name__
        with contextlib.suppress(RunError):  # a full disk: the error that the user sees is the run's own
            record.model_copy(update={"status": "failed", "error": line}).write(folder)
        return
    for name in (RUN_FILE, "log.jsonl"):
        (folder / name).unlink(missing_ok=True)
    for name in ("reference", "checkpoint"):
        shutil.rmtree(folder / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # the folder holds something that is not the run's
        folder.rmdir()


def steps_taken(folder: str | Path) -> int:
    """Return how many steps a run's log holds."""
    log = Path(folder) / "log.jsonl"
    return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


def write_card(folder: Path) -> None:
    """Write the model card of a forget run from what its folder holds now."""
    record = read_record(folder)
    if record is None or record.kind != "forget" or not (folder / "model").is_dir():
        return
    measured = folder / "measurements.json"
    measurements = _read_json(measured) if measured.exists() else []
    attacks = {file.stem.removeprefix("attack-"): _read_json(file) for file in folder.glob("attack-*.json")}
    write_text(folder / "model" / "README.md", model_card(record.tree(), measurements, attacks))


def _read_json(file: Path) -> Any:
    """Read a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))
