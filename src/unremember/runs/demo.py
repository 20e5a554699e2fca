"""The whole task on a generated world: train, retrain, forget three ways, audit, report."""

from __future__ import annotations

from pathlib import Path

from unremember.report.comparison import Comparison
from unremember.runs.compare import run_comparison, save_comparison
from unremember.runs.config import parse_config
from unremember.runs.forget import run_forget
from unremember.runs.train import run_train

DEMO_TRAINING = {"epochs": 9, "lr": 2e-3, "batch_size": 32, "warmup": 1.0}
"""The settings with which the demo trains its original and its oracle."""
DEMO_METHODS = {
    "gradient_difference": {"batch_size": 16, "lr": 3e-4, "epochs": 6},
    "npo": {"batch_size": 16, "lr": 5e-4, "epochs": 8},
    "simnpo": {"batch_size": 16, "lr": 5e-4, "epochs": 8},
}
"""The methods of the demo with their settings."""


def run_demo(folder: Path, people: int = 100) -> Comparison:
    """Run the demo into a folder; what is finished there is used again.

    Args:
        people: How many people the generated world has; a tenth of them is forgotten.
    """
    data = {"name": "people", "count": people}
    original, oracle = folder / "original", folder / "oracle"
    run_train(parse_config({"data": data, **DEMO_TRAINING}), original)
    run_train(parse_config({"data": data, "without": ["forget"], **DEMO_TRAINING}), oracle)
    for method, settings in DEMO_METHODS.items():
        config = {"model": str(original), "data": data, "method": method, **settings}
        run_forget(parse_config(config), folder / method)
    comparison = run_comparison(
        [str(folder / method) for method in DEMO_METHODS],
        parse_config({"data": data}),
        oracles=[str(oracle)],
        original=str(original),
        store=folder / "observations",
        title=f"Forgetting {round(people * 0.1)} of {people} people",
        show_text=True,
    )
    save_comparison(comparison, folder)
    return comparison
