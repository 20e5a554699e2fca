"""Articles: MUSE's six criteria on generated articles whose truth is known. Needs no download."""

from __future__ import annotations

import dataclasses

from unremember.benchmarks.muse import (
    MUSE_AUDITS,
    STREAM_LENGTH,
    StreamKind,
    continuation_row,
    few_shot_rows,
)
from unremember.data.split import Row, Split, make_split
from unremember.errors import ConfigError, did_you_mean
from unremember.registry import benchmarks
from unremember.worlds.articles import articles
from unremember.worlds.people import make_world

SHOTS = 1
"""Answered questions before each question: the last about a retained article, which are not asked."""


@benchmarks.register("articles", needs=("original", "oracle"), taxonomy="evaluation.datasets", fidelity="own")
@dataclasses.dataclass(frozen=True)
class Articles:
    """MUSE's audits on generated articles: a quarter to forget, a half to retain, a quarter never learned.

    Each article and the two questions about it are learned, forgotten or retained together.

    Args:
        count: The number of articles.
        forget: ``all`` of the quarter, its k-th fourth (``sust_k``), or its first k fourths (``scal_k``).
        seed: The seed of the world.
    """

    count: int = 200
    forget: str = "all"
    seed: int = 0

    def split(self) -> Split:
        """Return the split, with the roles of MUSE.

        Raises:
            ConfigError: There is no such forget set.
        """
        documents, questions = articles(make_world(self.count, self.seed))
        quarter = self.count // 4
        forget, retain = self._forget_range(), slice(quarter, self.count - quarter)
        holdout = documents[self.count - quarter :]
        forget_questions = [row for rows in questions[forget] for row in rows]
        retain_questions = [row for rows in questions[retain] for row in rows]
        shots = retain_questions[-SHOTS:]
        knowmem = few_shot_rows(shots, forget_questions)
        knowmem_retain = few_shot_rows(shots, retain_questions[:-SHOTS])
        roles: dict[str, list[Row]] = {
            "forget": [*documents[forget], *knowmem],
            "retain": [*documents[retain], *knowmem_retain],
            "holdout": holdout,
            "verbmem": [continuation_row(row) for row in documents[forget]],
            "knowmem": knowmem,
            "knowmem_retain": knowmem_retain,
            "privleak_forget": documents[forget],
            "privleak_holdout": holdout,
            "privleak_retain": documents[retain],
        }
        return make_split(roles, name=f"articles {self.forget}", audits=MUSE_AUDITS)

    def _forget_range(self) -> slice:
        """Return which articles are forgotten. Raises ConfigError for an unknown forget set."""
        quarter = self.count // 4
        ends = [k * quarter // STREAM_LENGTH for k in range(STREAM_LENGTH + 1)]
        ranges: dict[str, slice] = {"all": slice(0, quarter)}
        ranges |= {f"sust_{k}": slice(ends[k - 1], ends[k]) for k in range(1, STREAM_LENGTH + 1)}
        ranges |= {f"scal_{k}": slice(0, ends[k]) for k in range(1, STREAM_LENGTH + 1)}
        if self.forget not in ranges:
            raise ConfigError(
                f"articles has no forget set {self.forget!r}: {did_you_mean(self.forget, ranges)}"
            )
        return ranges[self.forget]

    def requests(self, kind: StreamKind) -> list[Split]:
        """Return a split a request: one fourth after another (``sust``) or more and more (``scal``)."""
        return [dataclasses.replace(self, forget=f"{kind}_{k}").split() for k in range(1, STREAM_LENGTH + 1)]
