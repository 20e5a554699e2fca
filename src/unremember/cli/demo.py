"""``demo``: the whole task on a generated world, from nothing to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the demo.")] = Path("runs/demo"),
    people: Annotated[int, typer.Option(help="People in the world.")] = 100,
) -> None:
    """Train, retrain, forget in three ways, audit and report, on a generated world.

    What is finished is used again by the next run.

    unremember demo

    unremember demo --people 40 -o runs/small
    """
    import time

    from unremember.cli.compare import print_comparison
    from unremember.runs.demo import run_demo
    from unremember.runs.folder import notice

    began = time.monotonic()
    print_comparison(run_demo(out, people), out)
    notice(f"done in {time.monotonic() - began:.0f} s")
