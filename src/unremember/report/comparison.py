"""A comparison: artefacts and their measurements, as plain data that is kept as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from unremember.errors import DataError
from unremember.files import write_text


def plain(tree: Any) -> str:
    """Strict JSON: a number that is not finite becomes null."""
    return json.dumps(finite(tree), indent=2, allow_nan=False, ensure_ascii=False)


def finite(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


@dataclasses.dataclass(frozen=True)
class Artefact:
    """One model and what was measured of it.

    ``measurements`` are rows of ``Measurement.row()``; ``note`` says why there are none (a collapsed run); ``curve``
    has one mapping an epoch: ``epoch``, and the value of each metric by name.
    """

    name: str
    kind: Literal["original", "oracle", "unlearned", "collapsed"] | str
    method: str
    digest: str
    measurements: Sequence[Mapping[str, Any]]
    note: str = ""
    curve: Sequence[Mapping[str, Any]] = ()

    def figure(self, name: str) -> Mapping[str, Any]:
        """The measurement called ``name``, or an empty mapping."""
        return next((m for m in self.measurements if m["name"] == name), {})


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Artefacts side by side. ``facts`` say what made the figures; ``samples`` show questions and what each model says.

    A sample is ``role``, ``question``, ``answer`` (the true one) and ``said``, a text by artefact.
    """

    title: str
    artefacts: Sequence[Artefact]
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()

    def text(self) -> str:
        return plain(dataclasses.asdict(self))

    def save(self, path: Path) -> None:
        write_text(path, self.text())

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Raises DataError where the file is missing or not a comparison."""
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            artefacts = tuple(
                Artefact(**{**a, "measurements": tuple(a["measurements"])}) for a in tree.pop("artefacts")
            )
            return cls(artefacts=artefacts, **tree)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not a comparison ({type(error).__name__}): make one with `unremember compare`"
            ) from error
