"""The generated world: question and answer pairs made in a second, at the largest size."""

from __future__ import annotations

import argparse

from measure import Figure, main, timed
from unremember.worlds.people import people_split

TARGET = 50_000


def run(chosen: argparse.Namespace) -> list[Figure]:
    made: list[int] = []
    seconds = timed(
        lambda: made.append(
            sum(len(role) for role in people_split(2_000 if chosen.quick else 20_000).roles.values())
        )
    )
    return [Figure(f"{made[0]} pairs of people", seconds, None, made[0] / TARGET)]


if __name__ == "__main__":
    main(__doc__, run)
