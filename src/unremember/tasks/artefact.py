"""An artefact: a model, the task it is used for and what guards it.

Every figure is bound to the digest of one.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from unremember.errors import ConfigError, ModelError, did_you_mean
from unremember.models.digest import config_digest, config_entries, weights_digest
from unremember.models.load import list_model_files, runs_remote_code
from unremember.registry import tasks
from unremember.tasks.protocol import Task

RECORD = "task.json"
"""The file in a model folder that names the model's task."""
_STORAGE = "quantization_config"
"""The entry of a configuration that says how the weights are stored."""


@dataclasses.dataclass(frozen=True, eq=False)
class Artefact:
    """What is forgotten from, audited, attacked and certified.

    Whatever changes the model's output is part of its digest: it lies in the weights and buffers, in the
    configuration, in the task or in the guard. A forward hook or a plain attribute of a module is not seen:
    make it a buffer.

    Args:
        model: Any ``nn.Module`` that the task can run.
        task: How rows become forwards of the model, and what decides its figures beside the weights.
        guard: What stands around the model at inference, with a ``digest`` of its own; None for a bare model.
    """

    model: Any
    task: Task
    guard: Any = None

    @cached_property
    def weights(self) -> str:
        """SHA-256 (hex) of the weights alone, when they were first asked for."""
        return weights_digest(self.model)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over weights, model configuration, task and guard, when it was first asked for."""
        guard = "" if self.guard is None else self.guard.digest
        parts = [self.weights, config_digest(self.model), self.task.digest, guard]
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()

    def verify(self) -> str:
        """Return the digest. Raises ModelError where the weights are no longer those that it was taken of."""
        if "weights" in self.__dict__ and weights_digest(self.model) != self.weights:
            raise ModelError(
                f"the model changed since its digest was taken ({self.weights[:12]}): its earlier figures "
                "are not its own; make a new Artefact(model, task), or copy the one that was measured"
            )
        return self.digest

    def copy(self) -> Artefact:
        """Return an artefact with a copy of the model, which may be changed freely."""
        return Artefact(copy.deepcopy(self.model), self.task, self.guard)

    def save(self, folder: Path) -> None:
        """Write model and task to ``folder``, which is replaced only once the new one is whole.

        Raises ModelError for a guarded model: a folder holds a bare one.
        """
        if self.guard is not None:
            raise ModelError(
                "a guard is not saved with its model: save Artefact(model, task) and keep the guard beside it"
            )
        self.task.save(self.model, folder)


@dataclasses.dataclass(frozen=True)
class Interface:
    """How an artefact is asked: what must be alike wherever figures are compared.

    Args:
        task: The digest of its task: for text, the tokenizer and the prompt template.
        architecture: The entries of its model's configuration, without how the weights are stored.
    """

    task: str
    architecture: Mapping[str, Any]

    @classmethod
    def of(cls, artefact: Artefact) -> Interface:
        """Return the interface of an artefact, which may be dropped afterwards."""
        entries = config_entries(artefact.model)
        return cls(artefact.task.digest, {key: entries[key] for key in entries.keys() - {_STORAGE}})


def check_comparable(interfaces: Mapping[str, Interface]) -> None:
    """Raise ConfigError where artefacts that are to be compared are not asked alike.

    Args:
        interfaces: By a name for the message, such as ``the oracle runs/oracle``.
    """
    (name, first), *controls = interfaces.items()
    for control, interface in controls:
        if interface.task != first.task:
            raise ConfigError(
                f"{control} has another tokenizer or prompt template than {name}: their figures do not "
                "compare; give one template= for all, and controls with the same tokenizer"
            )
        for key in sorted(first.architecture.keys() | interface.architecture.keys()):
            entry, expected = interface.architecture.get(key), first.architecture.get(key)
            if entry != expected:
                raise ConfigError(
                    f"{control} has another architecture than {name} ({key}: {entry}, not {expected}): "
                    "their figures do not compare"
                )


def load_artefact(name: str | Path, template: str | Mapping[str, Any] | None = None) -> Artefact:
    """Load the model in a folder or at a hub name, with its task.

    Args:
        name: A model folder or a hub name.
        template: A prompt template in place of the stored one (text only).

    Raises:
        ModelError: Nothing that can be loaded is there.
        ConfigError: The folder names a task that is not registered, or the task has no template.
    """
    task: Any = tasks.entry(task_name(str(name))).make
    return Artefact(*task.load(str(name), template))


def task_name(name: str) -> str:
    """Return the name of the task that a model folder or hub name is of.

    A folder that was saved as an artefact says so in ``task.json``; else the architecture in ``config.json``
    decides.
    """
    record, config = Path(name) / RECORD, Path(name) / "config.json"
    if record.is_file():
        recorded = read_json(record).get("task")
        if recorded not in tasks.names():
            raise ConfigError(
                f"{record} names the task {recorded!r}: {did_you_mean(str(recorded), tasks.names())}"
            )
        return str(recorded)
    if not Path(name).is_dir():
        list_model_files(name)
        return task_of_architectures(hub_architectures(name))
    return task_of_architectures(read_json(config).get("architectures") if config.is_file() else None)


def task_of_architectures(architectures: Any) -> str:
    """Return the task whose architectures these are; the language task where none says so."""
    for entry in tasks.all():
        ending = str(entry.facts.get("architectures", "-"))
        if any(str(architecture).endswith(ending) for architecture in architectures or ()):
            return entry.name
    return "language"


def hub_architectures(name: str) -> Any:
    """Return what the configuration at a hub name calls its architectures; None where it cannot be read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=runs_remote_code()).architectures
    except Exception:  # the task's own loader says what is wrong
        return None


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ModelError where it holds none."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{file} cannot be read ({type(error).__name__}): save the model again") from error
