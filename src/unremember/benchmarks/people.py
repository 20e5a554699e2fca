"""The generated world of fictitious people, whose truth is known."""

from __future__ import annotations

import dataclasses

from unremember.data.split import Split
from unremember.registry import benchmarks
from unremember.worlds.people import people


@benchmarks.register("people", needs=("original", "oracle"), taxonomy="evaluation.datasets", fidelity="own")
@dataclasses.dataclass(frozen=True)
class People:
    """A seeded world of ``count`` fictitious people, a share ``forget`` of them to forget. Needs no download."""

    count: int = 200
    forget: float = 0.1
    seed: int = 0

    def split(self) -> Split:
        return people(count=self.count, forget=self.forget, seed=self.seed)
