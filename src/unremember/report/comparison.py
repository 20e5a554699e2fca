"""A comparison: models and their measurements, as plain data that is kept as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from unremember.errors import DataError
from unremember.files import read_verified, write_recorded


def strict_json(tree: Any) -> str:
    """Return plain data as strict JSON: a number that is not finite becomes null."""
    return json.dumps(_without_nonfinite(tree), indent=2, allow_nan=False, ensure_ascii=False)


def _without_nonfinite(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _without_nonfinite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nonfinite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


@dataclasses.dataclass(frozen=True)
class ComparedArtefact:
    """One model and its measurements.

    Args:
        name: Its name in tables.
        kind: What it is.
        method: The method that made it.
        digest: The hash to which its measurements are bound.
        measurements: Rows of ``Measurement.row()``.
        note: Why there are no measurements (a collapsed run).
        curve: A mapping for each epoch: ``epoch``, and the value of each metric by name.
    """

    name: str
    kind: Literal["original", "oracle", "unlearned", "collapsed"] | str
    method: str
    digest: str
    measurements: Sequence[Mapping[str, Any]]
    note: str = ""
    curve: Sequence[Mapping[str, Any]] = ()

    def figure(self, name: str) -> Mapping[str, Any]:
        """Return the measurement called ``name``, or an empty mapping."""
        return next((m for m in self.measurements if m["name"] == name), {})


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Args:
        title: The title of tables and page.
        artefacts: The models.
        facts: What made the figures: data, seeds, versions.
        samples: Questions and what each model says: ``role``, ``question``, ``answer`` (the true one) and
            ``said``, a text by model.
    """

    title: str
    artefacts: Sequence[ComparedArtefact]
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()

    def text(self) -> str:
        """Return the comparison as JSON."""
        return strict_json(dataclasses.asdict(self))

    def save(self, path: Path) -> None:
        """Write the comparison to a JSON file."""
        write_recorded(path, self.text().encode())

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Read a comparison from its file.

        Raises:
            DataError: The file is missing or not a comparison.
            RunError: The file is corrupt.
        """
        try:
            tree = json.loads(read_verified(path, "make it again with `unremember compare`"))
            artefacts = tuple(
                ComparedArtefact(**{**artefact, "measurements": tuple(artefact["measurements"])})
                for artefact in tree.pop("artefacts")
            )
            return cls(artefacts=artefacts, **tree)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not a comparison ({type(error).__name__}): make one with `unremember compare`"
            ) from error
