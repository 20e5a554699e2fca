"""What every script shares: real data and model, interleaved timing, and a table of ratios."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_WIDE = 68
"""Characters of a figure's name."""
_FOLDER = Path(os.environ.get("UNREMEMBER_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured line.

    Its ``value`` is the product over the floor, or the product alone where there is no floor. It should be at
    most ``target``.
    """

    what: str
    product: float
    floor: float | None
    target: float
    unit: str = "s"

    @property
    def value(self) -> float:
        return self.product / self.floor if self.floor else self.product

    @property
    def verdict(self) -> str:
        return "ok" if self.value <= self.target else "MISSED"


def options(text: str) -> argparse.Namespace:
    """Parse ``--json``, ``--quick`` (an eighth of the work, to try things out) and ``--repeats``."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="an eighth of the work: noisier figures")
    parser.add_argument(
        "--repeats", type=int, default=1, help="interleaved runs of product and floor (median)"
    )
    return parser.parse_args()


def main(text: str, run: Callable[[argparse.Namespace], Iterable[Figure]]) -> None:
    """Run one script from the command line; each figure is printed as soon as it is measured."""
    chosen = options(text)
    if chosen.json:
        print(
            json.dumps(
                [{**dataclasses.asdict(f), "value": f.value, "verdict": f.verdict} for f in run(chosen)],
                indent=2,
            )
        )
        return
    print(f"{'what':{_WIDE}}  {'product':>12}  {'floor':>12}  {'ratio':>6}  {'target':>8}", flush=True)
    for figure in run(chosen):
        print(line(figure), flush=True)


def line(f: Figure) -> str:
    """Return a figure as a line of the table."""
    floor, ratio = (f"{f.floor:9.4g} {f.unit:2}", f"{f.value:6.3f}") if f.floor else ("–", "–")
    product = f"{f.product:9.4g} {f.unit:2}"
    return f"{f.what:{_WIDE}}  {product}  {floor:>12}  {ratio:>6}  {f.target:8.4g}  {f.verdict}"


def data_folder() -> Path:
    """Return the folder of the real data. Exits where there is none."""
    if not (_FOLDER / "tofu").is_dir():
        sys.exit(
            f"no real data at {_FOLDER}: set UNREMEMBER_DATA to the folder that holds tofu/ and "
            "tofu-tiny-llama/"
        )
    return _FOLDER


def tofu(every: int = 1) -> Any:
    """Return the TOFU forget10 split, with one row of ``every`` in each role."""
    from unremember.benchmarks.tofu import TOFU

    split = TOFU(path=str(data_folder() / "tofu")).split()
    return split.with_rows(**{name: role.rows[::every] for name, role in split.roles.items()})


def original() -> Any:
    """Return the artefact that was trained on all of TOFU."""
    from unremember.tasks.artefact import load_artefact

    return load_artefact(data_folder() / "tofu-tiny-llama")


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(repeats: int, *works: Callable[[], float]) -> list[float]:
    """Return the median seconds of each work, run in turn so that a noisy machine slows all of them alike.

    Each work returns its own seconds.
    """
    turns = [[work() for work in works] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*turns)]
