"""The log of a run: what every step gave, one JSON line each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unremember.errors import RunError
from unremember.files import disk_errors, write_text

LOG = "log.jsonl"
_REMEDY = "delete it, and the same command carries on without it"


class StepLog:
    """The log as it is written. A resumed run first drops the lines after its checkpoint.

    Args:
        path: The file. It is made with the first step.
        position: The steps of the checkpoint.
        digest: What ``digest`` was at the checkpoint; "" where that is not known.

    Raises:
        RunError: A line is corrupt, or the steps of the checkpoint are not those that were logged.
    """

    def __init__(self, path: Path, position: int, digest: str) -> None:
        self.path = path
        self.hash = hashlib.sha256()
        if not path.exists():
            return
        before = "".join(f"{json.dumps(row)}\n" for row in read_log(path) if row["step"] <= position)
        self.hash.update(before.encode())
        if digest and digest != self.digest:
            raise RunError(
                f"{path} is corrupt, its first {position} steps are not those that were logged: {_REMEDY}"
            )
        write_text(path, before)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the file."""
        return self.hash.hexdigest()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one line."""
        line = f"{json.dumps(row)}\n"
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        self.hash.update(line.encode())


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the steps of a log. A last line that was cut off is left out; there are none without a log.

    Raises:
        RunError: A line is no step.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else [""]
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path} is corrupt, its line {number} is no step: {_REMEDY}") from error
    return rows
