"""``train``: from scratch or from a model, with or without some roles."""

from __future__ import annotations

from typing import Annotated

import typer

from unremember.cli.options import (
    AllowImportOption,
    ConfigOption,
    DataOption,
    KeysArgument,
    ModelOption,
    RunFolderOption,
    SelectionOption,
)


def train_command(
    out: RunFolderOption,
    data: DataOption = "",
    model: ModelOption = "",
    config: ConfigOption = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Role to leave out; `--without forget` makes the retrained oracle."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Role to learn, and no other one; `--only forget` reinforces for whp."),
    ] = None,
    selection: SelectionOption = "",
    allow_import: AllowImportOption = None,
    keys: KeysArgument = None,
) -> None:
    """Train a model on a benchmark's data: a small one from scratch, or the one that --model names.

    unremember train -o runs/original -d people data.count=100 epochs=20 lr=2e-3

    unremember train -o runs/oracle --without forget -d people data.count=100 epochs=20 lr=2e-3
    """
    from unremember.runs.config import read_config
    from unremember.runs.train import run_train

    flags = {"model": model, "data": data, "without": without, "only": only, "selection": selection}
    run_train(read_config(config, flags, keys or [], allow_import or []), out)
