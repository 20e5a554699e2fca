"""The generated sciences: WMDP's question at a size that trains in minutes."""

from __future__ import annotations

import dataclasses

from unremember.data.split import Split
from unremember.registry import benchmarks
from unremember.worlds.sciences import sciences


@benchmarks.register("sciences", needs=("original", "oracle"), taxonomy="evaluation.datasets", fidelity="own")
@dataclasses.dataclass(frozen=True)
class Sciences:
    """A seeded world of three sciences with ``subjects`` subjects each, one science to forget. Needs no download."""

    subjects: int = 30
    texts: int = 4
    seed: int = 0

    def split(self) -> Split:
        return sciences(self.subjects, self.texts, self.seed)
