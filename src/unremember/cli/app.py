"""``unremember``: the commands."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from unremember.cli import bench, commands, lists
from unremember.errors import UnrememberError, plain_warnings

app = typer.Typer(
    name="unremember",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Take data out of a trained model and prove that it is gone.\n\n"
    "Start with [bold]unremember demo[/bold]; list what there is with [bold]unremember methods[/bold].",
)
commands.add_commands(app)
bench.add_bench(app)
lists.add_lists(app)
INTERRUPTED = 130


def main() -> None:
    """Run a command; every error a user can cause is one line and exit code 2."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (one process of a job answers)
    plain_warnings()
    try:
        app()
    except UnrememberError as error:
        fail(" ".join(str(error).split()), 2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        fail("interrupted: the same command carries on from the last checkpoint", INTERRUPTED)
    except Exception as error:
        if os.environ.get("UNREMEMBER_TRACE"):
            raise
        fail(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]} (UNREMEMBER_TRACE=1 shows where)",
            1,
        )


def fail(line: str, code: int) -> None:
    print(f"unremember: {line}", file=sys.stderr)
    raise SystemExit(code)
