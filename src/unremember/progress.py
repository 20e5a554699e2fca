"""Progress bars with tokens per second and time left; silent outside a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as _Bars

from unremember.processes import is_main_process


class Progress:
    """A progress bar, used as a context manager.

    Args:
        title: What the bar is of.
        total: The number of steps.
        start: The steps that are done already.
        quiet: Show nothing.
    """

    def __init__(self, title: str, total: int, start: int = 0, quiet: bool = False) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        hidden = quiet or not console.is_terminal or not is_main_process()
        self.bars = _Bars(*columns, console=console, transient=True, disable=hidden)
        self.bar = self.bars.add_task(title, total=total, completed=start, speed="–", note="")
        self.tokens, self.began = 0, time.monotonic()

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def advance(self, steps: int, tokens: int, note: str = "") -> None:
        """Move the bar on by ``steps``, count the ``tokens`` that they took and show ``note`` behind it."""
        self.tokens += tokens
        speed = f"{self.tokens / max(1e-9, time.monotonic() - self.began):,.0f}" if self.tokens else "–"
        self.bars.update(self.bar, advance=steps, speed=speed, note=note)
