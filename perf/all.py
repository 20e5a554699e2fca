"""Every script, one after another: a line a figure (half an hour; ratios hold within one run only)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import audits
import evaluate
import job
import memory
import methods
import seams
import startup
import train
import world
from measure import Figure, main


def run(chosen: argparse.Namespace) -> Iterator[Figure]:
    for part in (startup, world, train, methods, seams, evaluate, audits, job, memory):
        yield from part.run(chosen)


if __name__ == "__main__":
    main(__doc__, run)
