"""``demo``: the main job on the generated world, from nothing to the report."""

from __future__ import annotations

import time
from pathlib import Path

from unremember.cli.compare import compared, publish
from unremember.cli.config import checked
from unremember.cli.folder import notice
from unremember.cli.forget import forget_run
from unremember.cli.train import train_run

TRAINING = {"epochs": 9, "lr": 2e-3, "batch_size": 32, "warmup": 1.0}
METHODS = {
    "gradient_difference": {"batch_size": 16, "lr": 3e-4, "epochs": 6},
    "npo": {"batch_size": 16, "lr": 5e-4, "epochs": 8},
    "simnpo": {"batch_size": 16, "lr": 5e-4, "epochs": 8},
}


def demo_run(out: Path, people: int) -> None:
    """Train, retrain, forget three ways, audit, report; every finished part is reused by the next run."""
    began = time.monotonic()
    data = {"name": "people", "count": people}
    original, oracle = str(out / "original"), str(out / "oracle")
    train_run(checked({"data": data, **TRAINING}), out / "original")
    train_run(checked({"data": data, "without": ["forget"], **TRAINING}), out / "oracle")
    for method, settings in METHODS.items():
        forget_run(checked({"model": original, "data": data, "method": method, **settings}), out / method)
    folders = [str(out / method) for method in METHODS]
    title = f"Forgetting {round(people * 0.1)} of {people} people"
    publish(
        compared(folders, checked({"data": data}), [oracle], original, out / "observations", title=title),
        out,
        False,
    )
    notice(f"done in {time.monotonic() - began:.0f} s")
