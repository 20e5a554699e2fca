"""Matched forgetting: methods are compared where all have forgotten as much."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember.data.split import Split
from unremember.errors import RunError
from unremember.files import read_verified, write_recorded
from unremember.observe.store import Store
from unremember.registry import audits
from unremember.tasks.artefact import Artefact

REMAINING = 0.1
"""What is left of the way from the oracles' forget probability to the original's at matched forgetting."""
COMPARED_AUDITS = (
    "forget_quality",
    "model_utility",
    "probability",
    "extraction_strength",
    "membership_loss",
)
"""What is measured at matched forgetting."""


def matched_target(original: float, oracles: Sequence[float]) -> float:
    """Return the forget probability of matched forgetting, from the original's and the oracles'."""
    end = sum(oracles) / len(oracles)
    return end + REMAINING * (original - end)


def answer_probability(artefact: Artefact, split: Split, role: str = "forget") -> float:
    """Return the mean probability per token of a role's answers."""
    probability = audits.make({"name": "probability", "role": role})
    observations = Store().observe(artefact, split, probability.requests(split), quiet=True)
    return float(probability.measure(observations, []).value)


def read_cell(path: Path, identity: str) -> dict[str, Any] | None:
    """Return the result that was stored under this identity; None where there is none.

    Raises:
        RunError: The file is corrupt.
    """
    if not path.exists():
        return None
    remedy = "delete it, and it is computed anew"
    content = read_verified(path, remedy)
    try:
        cell = dict(json.loads(content))
        return cell if cell["identity"] == identity else None
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} cannot be read ({error}): {remedy}") from error


def write_cell(path: Path, cell: Mapping[str, Any]) -> None:
    """Store a result, which holds its ``identity``."""
    write_recorded(path, json.dumps(cell, indent=1).encode())
