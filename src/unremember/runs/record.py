"""The record of a run: what ``run.json`` holds, and how an earlier one is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from unremember.errors import ConfigError
from unremember.files import read_verified, write_recorded
from unremember.runs.config import RunConfig

RUN_FILE = "run.json"
RunKind = Literal["train", "forget"]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", populate_by_name=True)


class RunDigests(_Part):
    """SHA-256 (hex) of what a run began with and ended with; empty for what is not known (yet).

    Args:
        inputs: The files that the configuration names: a model folder's or a file's, by key.
        start: The weights that the run began with.
        artefact: The resulting artefact: weights, model configuration, task.
        weights: The resulting weights alone.
        data: All rows of the split, by role.
        task: The task: for text, the tokenizer and the prompt template.
        settings: The settings of the loop.
        files: The files that the run ended with, by path in its folder: those of the model, and the log.
    """

    inputs: dict[str, str] = {}
    start: str = ""
    artefact: str = ""
    weights: str = ""
    data: str = ""
    task: str = ""
    settings: str = ""
    files: dict[str, str] = {}


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
        write_recorded(folder / RUN_FILE, json.dumps(self.tree(), indent=2).encode())
        return self

    def is_of(self, kind: RunKind, config: RunConfig) -> bool:
        """Return whether this is the record of the run that a command asks for."""
        return self.kind == kind and self.config.model_dump(mode="json") == config.model_dump(mode="json")


def read_record(folder: str | Path) -> RunRecord | None:
    """Read the record of a run folder; None where there is none.

    Raises:
        ConfigError: ``run.json`` cannot be read, or is of an older version and cannot be migrated.
        RunError: ``run.json`` is corrupt.
    """
    file = Path(folder) / RUN_FILE
    if not file.exists():
        return None
    try:
        tree = dict(json.loads(read_verified(file, "delete that folder or choose another")))
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
