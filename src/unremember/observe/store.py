"""The store: computes each observation once for an artefact and a request, and keeps it on disk."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from unremember.data.split import Split
from unremember.errors import ConfigError, RunError
from unremember.files import read_verified, write_recorded
from unremember.observe.protocol import Arrays, ObservationContext, ObservationRequest
from unremember.observe.records import Observations
from unremember.processes import move_to_device, value_of_main_process
from unremember.tasks.artefact import Artefact

Request = ObservationRequest[Any]


@dataclasses.dataclass(frozen=True)
class Store:
    """Observations in ``folder``, one file for each request and artefact; None keeps nothing.

    Of several processes each computes a share, and the main one writes.
    """

    folder: Path | None = None

    def observe(
        self, artefact: Artefact, split: Split, requests: Sequence[Request], quiet: bool = False
    ) -> Observations:
        """Return the requested observations of an artefact, and those that they require.

        Reads from disk what is there, and computes the rest in as few passes as possible.

        Raises:
            ConfigError: The artefact's task cannot give a requested observation, or the artefact is guarded:
                what is observed here is the bare model.
            ModelError: The model changed since the artefact's digest was taken.
        """
        if artefact.guard is not None:
            raise ConfigError(
                "a guarded model is not observed yet: observe the bare one, Artefact(model, task)"
            )
        digest = artefact.verify()
        stages = stages_of(requests)
        check_task(artefact, [*requests, *(request for stage in stages for request in stage)])
        move_to_device(artefact.model).eval()
        keys = {request: request.key(split) for stage in stages for request in stage}
        values: dict[Request, Any] = {}
        context = ObservationContext(
            artefact, split, quiet, values, lambda request: self.read_latest(request.key(split))
        )
        for stage in stages:
            arrays = self.arrays_of(stage, keys, digest, context)
            values |= {request: request.decode(arrays[keys[request]], context) for request in stage}
        return Observations(digest, artefact.weights, split, values)

    def arrays_of(
        self, stage: Sequence[Request], keys: dict[Request, str], digest: str, context: ObservationContext
    ) -> dict[str, Arrays]:
        """Return the arrays of requests of one kind, by key; what is not on disk is computed in one go."""
        arrays: dict[str, Arrays] = {}
        missing: dict[str, Request] = {}
        for request in stage:
            key = keys[request]
            if key in arrays or key in missing:
                continue
            stored = value_of_main_process(self.read(self.path(key, digest))) if request.stored else None
            if stored is None:
                missing[key] = request
            else:
                arrays[key] = stored
        if missing:
            computed = type(stage[0]).observe(list(missing.values()), context)
            for key, request in missing.items():
                arrays[key] = computed[request]
                self.write(request, key, digest, computed[request])
        return arrays

    def path(self, key: str, digest: str) -> Path | None:
        """Return the file of a request and an artefact; None where nothing is kept."""
        return self.folder / f"{key}-{digest[:32]}.safetensors" if self.folder else None

    def read(self, path: Path | None) -> Arrays | None:
        """Return the arrays in a file; None where there is none. A corrupt file is as none, with a notice."""
        if path is None or not path.exists():
            return None
        anew = "it is computed anew"
        try:
            return load(read_verified(path, anew))
        except RunError as error:
            warnings.warn(str(error), stacklevel=2)
        except (OSError, SafetensorError, ValueError) as error:
            warnings.warn(f"{path} cannot be read ({error}): {anew}", stacklevel=2)
        return None

    def read_latest(self, key: str) -> Arrays | None:
        """Return the arrays that were written last for a request, for whichever artefact."""
        files = self.folder.glob(f"{key}-*.safetensors") if self.folder else ()
        latest = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
        return value_of_main_process(self.read(latest))

    def write(self, request: Request, key: str, digest: str, arrays: Arrays) -> None:
        """Write the arrays of a request to its file, which appears whole or not at all."""
        path = self.path(key, digest)
        if path and request.stored:
            write_recorded(path, save(dict(arrays)))


def stages_of(requests: Iterable[Request]) -> list[list[Request]]:
    """Return the requests and all that they require, by kind; a group requires only earlier groups."""
    stages: dict[tuple[int, str], list[Request]] = {}
    depths: dict[Request, int] = {}

    def visit(request: Request) -> int:
        if request not in depths:
            depths[request] = 1 + max((visit(required) for required in request.requires()), default=-1)
            kind = type(request)
            stages.setdefault((depths[request], f"{kind.__module__}.{kind.__qualname__}"), []).append(request)
        return depths[request]

    for request in requests:
        visit(request)
    return [stages[stage] for stage in sorted(stages)]


def check_task(artefact: Artefact, requests: Iterable[Request]) -> None:
    """Raise ConfigError for the first request that the artefact's task cannot give."""
    name = artefact.task.name
    for request in requests:
        if request.task not in ("", name):
            raise ConfigError(
                f"the task {name!r} cannot give {request}, which needs the task {request.task!r}: "
                "choose audits that suit the model (unremember audits lists them)"
            )
