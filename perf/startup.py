"""Start-up: the command line before any model is touched (best of five)."""

from __future__ import annotations

import argparse
import subprocess
import sys

from measure import Figure, main, timed

CALL = "import sys; from unremember.cli.app import main; sys.argv[0] = 'unremember'; main()"


def seconds(*arguments: str) -> float:
    call = [sys.executable, "-c", CALL, *arguments]
    return min(timed(lambda: subprocess.run(call, capture_output=True, check=True)) for _ in range(5))


def imports_torch(*arguments: str) -> bool:
    call = [sys.executable, "-X", "importtime", "-c", CALL, *arguments]
    listed = subprocess.run(call, capture_output=True, text=True, check=True).stderr
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in listed.splitlines())


def run(chosen: argparse.Namespace) -> list[Figure]:
    return [
        Figure("unremember --help", seconds("--help"), None, 0.3),
        Figure("unremember --help imports torch", float(imports_torch("--help")), None, 0.0, ""),
        Figure("unremember methods", seconds("methods"), None, 1.0),
    ]


if __name__ == "__main__":
    main(__doc__, run)
