"""``audit``: one model beside its controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from unremember.cli.options import (
    DataKeysArgument,
    DataOption,
    JsonOption,
    ModelOption,
    OracleOption,
    OriginalOption,
)


def audit_command(
    model: ModelOption,
    data: DataOption = "people",
    oracle: OracleOption = None,
    original: OriginalOption = "",
    as_json: JsonOption = False,
    audits: Annotated[
        list[str] | None,
        typer.Option("--audit", help="Only this audit; may be given several times. See `unremember audits`."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task of lm-eval, such as wmdp_bio or mmlu; may be given several times."),
    ] = None,
    keys: DataKeysArgument = None,
) -> None:
    """Measure a model beside its controls.

    unremember audit -m runs/npo --oracle runs/oracle --original runs/original -d people

    unremember audit -m runs/rmu --original runs/original -d people --task mmlu lm_eval.limit=50

    unremember audit -m runs/npo --original runs/original --audit fluency fluency.judge=runs/original/model
    """
    from unremember.report.comparison import plain
    from unremember.runs.audit import run_audit
    from unremember.runs.config import measurement_config

    chosen, data_keys = audit_specs(audits or [], task or [], keys or [])
    comparison = run_audit(
        model,
        measurement_config(data, data_keys),
        oracles=oracle or [],
        original=original,
        audits=chosen,
    )
    rows = comparison.artefacts[-1].measurements
    if as_json:
        print(plain(rows))
    else:
        print_measurements(model, rows)


def audit_specs(
    audits: Sequence[str], tasks: Sequence[str], keys: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the named audits and lm-eval tasks with their parameters, and the remaining keys."""
    from unremember.runs.config import part_parameters

    chosen: list[dict[str, Any]] = []
    for name in dict.fromkeys(audits):
        parameters, keys = part_parameters(keys, name)
        chosen.append({"name": name, **parameters})
    parameters, data_keys = part_parameters(keys, "lm_eval")
    return [*chosen, *({"name": "lm_eval", "task": task, **parameters} for task in tasks)], data_keys


def print_measurements(model: str, rows: Sequence[Any]) -> None:
    """Print a model's measurements as a table, and their notes."""
    from rich.console import Console

    from unremember.report.table import card

    console = Console()
    console.print(card(f"audit of {model}", rows))
    notes = (row["note"] or row["reason"] for row in rows)
    for note in dict.fromkeys(filter(None, notes)):
        console.print(f"· {note}", markup=False, highlight=False)
