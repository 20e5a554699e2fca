"""The generated world of fictitious people, whose truth is known."""

from __future__ import annotations

import dataclasses

from unremember.data.split import Split
from unremember.registry import benchmarks
from unremember.worlds.people import people_split


@benchmarks.register("people", needs=("original", "oracle"), taxonomy="evaluation.datasets", fidelity="own")
@dataclasses.dataclass(frozen=True)
class People:
    """A seeded world of fictitious people, a share of them to forget. Needs no download.

    Args:
        count: The people who are learned.
        forget: The share of them to forget.
        seed: The seed of the world.
    """

    count: int = 200
    forget: float = 0.1
    seed: int = 0

    def split(self) -> Split:
        """Return the split; see ``unremember.worlds.people.people_split``."""
        return people_split(count=self.count, forget=self.forget, seed=self.seed)
