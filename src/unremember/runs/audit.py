"""Audit one model beside its controls; a run folder keeps what was measured."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unremember.files import write_recorded
from unremember.report.comparison import Comparison, strict_json
from unremember.runs.compare import run_comparison, save_comparison
from unremember.runs.config import RunConfig
from unremember.runs.folder import run_store, write_card
from unremember.runs.lock import run_lock


def run_audit(
    model: str,
    config: RunConfig,
    *,
    oracles: Sequence[str] = (),
    original: str = "",
    audits: Sequence[Any] = (),
) -> Comparison:
    """Measure a model beside its controls; its measurements are those of the comparison's last artefact.

    A run folder keeps the measurements, the observations, the model card and a report. A model outside a run
    folder is only read.
    """
    store = run_store(model)
    with run_lock(Path(model)) if store else contextlib.nullcontext():
        comparison = run_comparison(
            [model], config, oracles=oracles, original=original, audits=audits, store=store
        )
        if store:
            measurements = strict_json(comparison.artefacts[-1].measurements)
            write_recorded(Path(model) / "measurements.json", measurements.encode())
            write_card(Path(model))
            save_comparison(comparison, Path(model))
    return comparison
