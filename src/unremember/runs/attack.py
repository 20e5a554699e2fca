"""Attack a model and its controls alike; a run folder keeps the curve."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember import api
from unremember.audits.controls import default_audits
from unremember.data.split import Split
from unremember.files import write_recorded
from unremember.registry import attacks
from unremember.registry import audits as audit_registry
from unremember.runs.compare import check_controls, named_candidates, shared_template
from unremember.runs.config import RunConfig
from unremember.runs.folder import artefact_of, run_store, split_of, write_card
from unremember.runs.lock import run_lock


def run_attack(
    model: str,
    attack: Mapping[str, Any],
    config: RunConfig,
    *,
    oracles: Sequence[str] = (),
    original: str = "",
    audits: Sequence[Any] = (),
) -> list[dict[str, Any]]:
    """Run an attack and return the ``amount`` and the ``measurements`` (rows) at every point of its budget.

    A run folder keeps them as ``attack-NAME.json``, with the observations.

    Args:
        attack: ``{"name": …, parameters}``.
        audits: What is measured at each point; none named: ``attack_audits``.
    """
    attacker, split = attacks.make(attack), split_of(config.data)
    candidates = named_candidates(original, oracles, [model])
    check_controls(candidates, split)
    template = config.template or shared_template(candidates)
    store = run_store(model)
    with run_lock(Path(model)) if store else contextlib.nullcontext():
        points = api.attack(
            artefact_of(model, template),
            split,
            attacker,
            oracle=[artefact_of(oracle, template) for oracle in oracles],
            original=artefact_of(original, template) if original else None,
            audits=audits or attack_audits(split),
            store=store,
        )
        rows = [{"amount": p.amount, "measurements": [m.row() for m in p.measurements]} for p in points]
        if store:
            write_recorded(Path(model) / f"attack-{attack['name']}.json", json.dumps(rows, indent=1).encode())
            write_card(Path(model))
    return rows


def attack_audits(split: Split) -> list[Any]:
    """Return the cheap audits of an attack that apply to a split; where none does, its usual ones."""
    cheap = [audit_registry.make(name) for name in api.ATTACKED]
    return [audit for audit in cheap if audit.requests(split)] or default_audits(split)
