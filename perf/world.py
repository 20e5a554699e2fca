"""The generated world: question and answer pairs pairs in a second, at the largest size."""

from __future__ import annotations

import argparse

from measure import Figure, main, timed
from unremember.worlds.people import people_split

TARGET = 50_000


def run(chosen: argparse.Namespace) -> list[Figure]:
    pairs: list[int] = []
    seconds = timed(
        lambda: pairs.append(
            sum(len(role) for role in people_split(2_000 if chosen.quick else 20_000).roles.values())
        )
    )
    return [Figure(f"{pairs[0]} pairs of people", seconds, None, pairs[0] / TARGET)]


if __name__ == "__main__":
    main(__doc__, run)
