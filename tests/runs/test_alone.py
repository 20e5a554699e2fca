"""Runs need no terminal: a server or a notebook calls them as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CODE = """
import json, sys
from pathlib import Path
from unremember.runs.config import parse_config
from unremember.runs.forget import run_forget
from unremember.runs.train import run_train

start, out, data = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
quick = {"data": data, "max_steps": 2, "batch_size": 4, "lr": 1e-2}
trained = run_train(parse_config({"model": start, **quick}), out / "original")
forgot = run_forget(parse_config({"model": str(out / "original"), "method": "npo", **quick}), out / "npo")
terminal = [name for name in sys.modules if name.startswith("unremember.cli") or name == "typer"]
print(json.dumps({"statuses": [trained.status, forgot.status], "terminal": terminal}))
print(forgot.digests.start == trained.digests.weights != forgot.digests.weights)
"""


def test_train_and_forget_without_the_terminal(start: str, data: dict[str, Any], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, start, str(tmp_path), json.dumps(data)],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert json.loads(first) == {"statuses": ["finished", "finished"], "terminal": []} and second == "True"
    assert done.stderr == ""
