"""``attack``: what can be recovered from a model, beside controls under the same attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from unremember.cli.options import (
    DataKeysArgument,
    DataOption,
    JsonOption,
    OracleOption,
    OriginalOption,
)

_NOTHING = "no verdict: at no point is there an axis between an original and an oracle"


def attack_command(
    model: Annotated[str, typer.Argument(help="Model folder or run folder.")],
    name: Annotated[str, typer.Option("--attack", help="See `unremember attacks`.")] = "relearning",
    data: DataOption = "people",
    oracle: OracleOption = None,
    original: OriginalOption = "",
    as_json: JsonOption = False,
    audits: Annotated[
        list[str] | None,
        typer.Option("--audit", help="What is measured at each point; see `unremember audits`."),
    ] = None,
    keys: DataKeysArgument = None,
) -> None:
    """Try to recover the forgotten data. The same attack runs on the original and on the retrained oracle.

    No model is changed.

    unremember attack runs/npo --oracle runs/oracle --original runs/original attack.steps=100 attack.lr=1e-3

    unremember attack runs/npo --attack quantisation --original runs/original attack.bits=[8,4]
    """
    import json

    from unremember.registry import attacks
    from unremember.runs.attack import run_attack
    from unremember.runs.config import measurement_config, part_parameters

    parameters, data_keys = part_parameters(keys or [], "attack")
    spec = {"name": name, **parameters}
    unit = attacks.make(spec).unit
    rows = run_attack(
        model,
        spec,
        measurement_config(data, data_keys),
        oracles=oracle or [],
        original=original,
        audits=audits or [],
    )
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print_curves(name, unit, rows)


def print_curves(name: str, unit: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the curve of every measurement, the worst point, and the notes."""
    from rich.console import Console

    from unremember.report.attack import attack_table, recovered_share, worst_point

    console = Console()
    for i, measurement in enumerate(rows[0]["measurements"]):
        console.print(attack_table(f"{name}: {measurement['name']}", unit, rows, i))
    if point := worst_point(rows):
        amount, row = point
        verdict = (
            f"most was recovered at {amount:g} {unit}: {recovered_share(row)} of what the attack recovers "
            f"of the original, by {row['name']}: {row['verdict']}"
        )
    else:
        verdict = _NOTHING
    console.print(verdict, highlight=False)
    notes = (measurement["note"] for row in rows for measurement in row["measurements"])
    for note in dict.fromkeys(filter(None, notes)):
        console.print(f"· {note}", markup=False, highlight=False)
