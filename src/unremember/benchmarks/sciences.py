"""The generated sciences: the question of WMDP at a size that trains in minutes."""

from __future__ import annotations

import dataclasses

from unremember.data.split import Split
from unremember.registry import benchmarks
from unremember.worlds.sciences import sciences_split


@benchmarks.register("sciences", needs=("original", "oracle"), taxonomy="evaluation.datasets", fidelity="own")
@dataclasses.dataclass(frozen=True)
class Sciences:
    """A seeded world of three sciences, one of them to forget. Needs no download.

    Args:
        subjects: The subjects of each science.
        texts: The texts about each subject.
        seed: The seed of the world.
    """

    subjects: int = 30
    texts: int = 4
    seed: int = 0

    def split(self) -> Split:
        """Return the split; see ``unremember.worlds.sciences.sciences_split``."""
        return sciences_split(self.subjects, self.texts, self.seed)
