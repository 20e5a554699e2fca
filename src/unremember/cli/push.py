"""``push``: a model with its card, to the hub."""

from __future__ import annotations

from typing import Annotated

import typer


def push_command(
    model: Annotated[str, typer.Argument(help="Run folder, or a model folder with its card.")],
    name: Annotated[str, typer.Argument(help="Name on the hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
) -> None:
    """Upload a forgotten model with its card: what was forgotten (by hash), how, and how it was measured.

    unremember push runs/npo owner/name --private
    """
    from unremember.runs.push import run_push

    typer.echo(run_push(model, name, private))
