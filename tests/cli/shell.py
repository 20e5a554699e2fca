"""The command line inside the test's process."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unremember.cli import app

WORLD = "data.count=20"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left in the shell."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=lambda token: pytest.fail(f"{token} is not JSON"))

    def refused(self) -> str:
        """The one line of a refusal."""
        assert (self.code, self.out, self.err.count("\n")) == (2, "", 1) and self.err.startswith(
            "unremember: "
        ), self
        return self.err.removeprefix("unremember: ").strip()


def shell(*words: Any) -> Outcome:
    """Run ``unremember`` with ``words`` as the installed command does."""
    torch.set_num_threads(1)
    out, err, code, before = io.StringIO(), io.StringIO(), 0, sys.argv
    sys.argv = ["unremember", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            app.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return Outcome(code, out.getvalue(), err.getvalue())


def ran(*words: Any) -> Outcome:
    """Run a command that must succeed."""
    outcome = shell(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def run_json(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def weights(folder: Path) -> str:
    """The digest of the weights that a run ended with."""
    return str(run_json(folder)["digests"]["weights"])
