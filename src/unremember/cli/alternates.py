"""``alternates``: other answers to the forget questions, invented by the model, for altpo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unremember.cli.options import DataKeysArgument, DataOption, ModelOption


def alternates_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: one JSON line for each row.")],
    model: ModelOption,
    data: DataOption = "people",
    count: Annotated[int, typer.Option(min=1, help="Answers that are sampled for each row.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    keys: DataKeysArgument = None,
) -> None:
    """Let a model invent other answers to the forget questions, which the method altpo reads.

    unremember alternates -m MODEL -d tofu data.path=TOFU template=chat -o runs/alternates.jsonl

    unremember forget -m MODEL -d tofu --method altpo method.alternates=runs/alternates.jsonl -o runs/altpo
    """
    from unremember.runs.alternates import run_alternates
    from unremember.runs.config import measurement_config

    answers = run_alternates(model, measurement_config(data, keys or []), out, count, seed)
    total, rows = sum(map(len, answers)), sum(map(bool, answers))
    typer.echo(f"{total} answers for {rows} of {len(answers)} rows: {out}")
