"""Every benchmark, one after another, and one table at the end (some minutes; ratios hold within one run only)."""

from __future__ import annotations

import argparse

import audits
import evaluate
import job
import memory
import methods
import startup
import train
import world
from measure import Figure, main, show


def run(chosen: argparse.Namespace) -> list[Figure]:
    figures: list[Figure] = []
    for part in (startup, world, train, methods, evaluate, audits, job, memory):
        found = part.run(chosen)
        if not chosen.json:
            show(found, False)
            print(flush=True)
        figures += found
    return figures


if __name__ == "__main__":
    main(__doc__, run)
