"""Start-up: the command line before any model is touched, and what a run costs besides its steps."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Figure, data_folder, interleaved, main, timed

IMPORTS = "import torch; from transformers import AutoModelForCausalLM, AutoTokenizer"
CALL = "import sys; from unremember.cli.app import main; sys.argv[0] = 'unremember'; main()"


def seconds(*arguments: str) -> float:
    call = [sys.executable, "-c", CALL, *arguments]
    return min(timed(lambda: subprocess.run(call, capture_output=True, check=True)) for _ in range(5))


def imports_torch(*arguments: str) -> bool:
    call = [sys.executable, "-X", "importtime", "-c", CALL, *arguments]
    listed = subprocess.run(call, capture_output=True, text=True, check=True).stderr
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in listed.splitlines())


def one_step() -> float:
    """Return the seconds of a forget run of one step on TOFU, from the start of its process to the end."""
    data = f"data={{name: tofu, path: '{data_folder() / 'tofu'}'}}"
    with tempfile.TemporaryDirectory() as folder:
        words = ["forget", "-m", str(data_folder() / "tofu-tiny-llama"), "-o", str(Path(folder) / "run")]
        words += ["--method", "gradient_ascent", data, "max_steps=1", "batch_size=4"]
        call = [sys.executable, "-c", CALL, *words]
        return timed(lambda: subprocess.run(call, capture_output=True, check=True))


def import_seconds() -> float:
    """Return the seconds of a process that imports torch and the auto classes of transformers."""
    return timed(lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True))


def run(chosen: argparse.Namespace) -> list[Figure]:
    run_seconds, floor = interleaved(5, one_step, import_seconds)
    return [
        Figure(
            "forget, one step, less 1 s, over importing torch and transformers", run_seconds - 1, floor, 1.2
        ),
        Figure("unremember --help", seconds("--help"), None, 0.3),
        Figure("unremember --help imports torch", float(imports_torch("--help")), None, 0.0, ""),
        Figure("unremember methods", seconds("methods"), None, 1.0),
    ]


if __name__ == "__main__":
    main(__doc__, run)
