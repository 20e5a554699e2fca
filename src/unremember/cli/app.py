"""``unremember``: the commands, and what the shell sees of an error."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable

import typer

from unremember.cli import lists
from unremember.cli.alternates import alternates_command
from unremember.cli.attack import attack_command
from unremember.cli.audit import audit_command
from unremember.cli.benchmark import benchmark_command
from unremember.cli.compare import compare_command, report_command
from unremember.cli.demo import demo_command
from unremember.cli.experiment import experiment_app
from unremember.cli.forget import forget_command
from unremember.cli.plan import plan_command
from unremember.cli.push import push_command
from unremember.cli.sweep import sweep_command
from unremember.cli.train import train_command
from unremember.errors import UnrememberError, one_line, print_one_line_warnings

_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo_command,
    "train": train_command,
    "plan": plan_command,
    "alternates": alternates_command,
    "forget": forget_command,
    "audit": audit_command,
    "attack": attack_command,
    "compare": compare_command,
    "report": report_command,
    "benchmark": benchmark_command,
    "sweep": sweep_command,
    "push": push_command,
}
_INTERRUPTED, _TERMINATED = 130, 143

app = typer.Typer(
    name="unremember",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Take data out of a trained model and prove that it is gone.\n\n"
    "Start with [bold]unremember demo[/bold]. [bold]unremember methods[/bold] lists what there is.",
)
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(experiment_app, name="experiment")
lists.add_lists(app)


def main() -> None:
    """Run a command. Every error that a user can cause is one line on stderr, with exit code 2."""
    collect_rarely()
    warnings.filterwarnings("ignore", category=FutureWarning)
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (one process of a job answers)
    print_one_line_warnings()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(_TERMINATED))
    try:
        app()
    except UnrememberError as error:
        fail(one_line(error), 2)
    except (KeyboardInterrupt, SystemExit) as end:
        code = end.code if isinstance(end, SystemExit) else _INTERRUPTED
        if code not in (_INTERRUPTED, _TERMINATED):
            raise
        fail("interrupted: the same command carries on from the last checkpoint", int(code))
    except Exception as error:
        if os.environ.get("UNREMEMBER_TRACE"):
            raise
        text = one_line(error)[:300]
        fail(f"unexpected {type(error).__name__}: {text} (UNREMEMBER_TRACE=1 shows where)", 1)


def collect_rarely() -> None:
    """Look for cyclic garbage after 200,000 new objects instead of 700, and never at exit.

    Importing torch and transformers makes a million objects that stay: looking through them again and again
    takes two seconds of a short run.
    """
    gc.set_threshold(200_000, 20, 100)
    atexit.register(gc.freeze)


def fail(line: str, code: int) -> None:
    """Print one line on stderr and leave with an exit code."""
    print(f"unremember: {line}", file=sys.stderr)
    raise SystemExit(code)
