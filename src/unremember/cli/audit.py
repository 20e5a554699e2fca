"""``audit``: one model beside its controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unremember.cli.compare import asked, compared, console
from unremember.cli.config import taken
from unremember.cli.folder import read_run, write_card
from unremember.files import write_text
from unremember.report.comparison import plain
from unremember.report.page import write_report
from unremember.report.table import card


def audit_run(
    model: str,
    data: str,
    oracles: Sequence[str],
    original: str,
    audits: Sequence[str],
    tasks: Sequence[str],
    as_json: bool,
    keys: Sequence[str],
) -> None:
    """Print one model's measurements; a run folder keeps them, with the observations and a report beside its controls."""
    run = Path(model) if read_run(model) else None
    chosen: list[Any] = []
    for name in dict.fromkeys(audits):
        parameters, keys = taken(keys, name)
        chosen.append({"name": name, **parameters})
    parameters, others = taken(keys, "lm_eval")
    chosen += [{"name": "lm_eval", "task": task, **parameters} for task in tasks]
    comparison = compared(
        [model], asked(data, others), oracles, original, run / "observations" if run else None, chosen
    )
    rows = comparison.artefacts[-1].measurements
    if run:
        write_text(run / "measurements.json", plain(rows))
        write_card(run)
        comparison.save(run / "comparison.json")
        write_report(comparison, run / "report.html")
    if as_json:
        print(plain(rows))
        return
    console.print(card(f"audit of {model}", rows))
    for note in dict.fromkeys(row["note"] or row["reason"] for row in rows if row["note"] or row["reason"]):
        console.print(f"· {note}", markup=False, highlight=False)
