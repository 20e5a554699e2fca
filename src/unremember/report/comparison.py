"""A comparison: artefacts and their measurements, as plain data that is kept as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from unremember.engine.checkpoint import write_text
from unremember.errors import DataError


@dataclasses.dataclass(frozen=True)
class Artefact:
    """One model and what was measured of it: ``measurements`` are rows of ``Measurement.row()``."""

    name: str
    kind: Literal["original", "oracle", "unlearned"] | str
    method: str
    digest: str
    measurements: Sequence[Mapping[str, Any]]

    def figure(self, name: str) -> Mapping[str, Any]:
        """The measurement called ``name``, or an empty mapping."""
        return next((m for m in self.measurements if m["name"] == name), {})


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Artefacts side by side. ``facts`` say what made the figures; ``samples`` show questions and what each model says."""

    title: str
    artefacts: Sequence[Artefact]
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()

    def text(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    def save(self, path: Path) -> None:
        write_text(path, self.text())

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Raises DataError where the file is missing or not a comparison."""
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            artefacts = tuple(Artefact(**{**a, "measurements": tuple(a["measurements"])}) for a in tree.pop("artefacts"))
            return cls(artefacts=artefacts, **tree)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a comparison ({type(error).__name__}): make one with `unremember compare`") from error
