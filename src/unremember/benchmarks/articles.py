"""Articles: MUSE's six criteria on generated articles whose truth is known. Needs no download."""

from __future__ import annotations

import dataclasses

from unremember.benchmarks.muse import AUDITS, STEPS, Kind, few_shot, passage
from unremember.data.split import Row, Split, make_split
from unremember.errors import ConfigError, nearest
from unremember.registry import benchmarks
from unremember.worlds.articles import articles
from unremember.worlds.people import make_world

SHOTS = 1
"""Answered questions before each question: of the last article that is kept, and not asked themselves."""


@benchmarks.register("articles", needs=("original", "oracle"), taxonomy="evaluation.datasets", fidelity="own")
@dataclasses.dataclass(frozen=True)
class Articles:
    """``count`` short generated articles, a quarter to forget, a half to keep, a quarter never learned, with MUSE's audits.

    ``forget`` is ``all`` of that quarter, its k-th fourth (``sust_k``) or its first k fourths (``scal_k``). Articles and two
    questions on each are learned, forgotten and kept together.
    """

    count: int = 200
    forget: str = "all"
    seed: int = 0

    def split(self) -> Split:
        documents, questions = articles(make_world(self.count, self.seed))
        quarter = self.count // 4
        gone = self.asked()
        kept = slice(quarter, self.count - quarter)
        holdout = documents[self.count - quarter :]
        about_gone, about_kept = ([row for some in questions[part] for row in some] for part in (gone, kept))
        pairs = about_kept[-SHOTS:]
        knowmem, knowmem_retain = few_shot(pairs, about_gone), few_shot(pairs, about_kept[:-SHOTS])
        roles: dict[str, list[Row]] = {
            "forget": [*documents[gone], *knowmem],
            "retain": [*documents[kept], *knowmem_retain],
            "holdout": holdout,
            "verbmem": [passage(row) for row in documents[gone]],
            "knowmem": knowmem,
            "knowmem_retain": knowmem_retain,
            "privleak_forget": documents[gone],
            "privleak_holdout": holdout,
            "privleak_retain": documents[kept],
        }
        return make_split(roles, name=f"articles {self.forget}", audits=AUDITS)

    def asked(self) -> slice:
        """Which articles are forgotten. Raises ConfigError for an unknown name."""
        quarter = self.count // 4
        ends = [k * quarter // STEPS for k in range(STEPS + 1)]
        parts: dict[str, slice] = {"all": slice(0, quarter)}
        parts |= {f"sust_{k}": slice(ends[k - 1], ends[k]) for k in range(1, STEPS + 1)}
        parts |= {f"scal_{k}": slice(0, ends[k]) for k in range(1, STEPS + 1)}
        if self.forget not in parts:
            raise ConfigError(f"articles has no forget set {self.forget!r}: {nearest(self.forget, parts)}")
        return parts[self.forget]

    def requests(self, kind: Kind) -> list[Split]:
        """A split a request: one fourth after another (``sust``), or ever more of them (``scal``)."""
        return [dataclasses.replace(self, forget=f"{kind}_{k}").split() for k in range(1, STEPS + 1)]
