"""Progress bars with tokens a second and time left; silent where nobody looks."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from unremember.processes import main


class Progress:
    """A bar over ``total`` steps: ``advance(steps, tokens, note)``."""

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
        self.bars = Bars(
            *columns, console=console, transient=True, disable=quiet or not console.is_terminal or not main()
        )
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
        self.tokens += tokens
        speed = f"{self.tokens / max(1e-9, time.monotonic() - self.began):,.0f}" if self.tokens else "–"
        self.bars.update(self.bar, advance=steps, speed=speed, note=note)
