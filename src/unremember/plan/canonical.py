"""Tier 0: every item of a request is replaced by the stored text that it matches. This finds an attack and cures it."""

from __future__ import annotations

import dataclasses
import difflib
import re

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from unremember.data.split import Role, Row

ACCEPT = 0.7
"""Cosine from which an item is the stored one: on TOFU, salted items have 0.82 at their 5 % quantile, questions that were
never trained on 0.60 at their 95 % quantile."""
ROWS = 256
"""Request items that are compared at once."""


@dataclasses.dataclass(frozen=True)
class Match:
    """Request item ``row`` and the nearest stored one; ``stored`` is None below ACCEPT: it is not found.

    ``inserted`` are words that the request has and the stored text has not, in order; ``removed`` the other way round.
    """

    row: int
    stored: int | None
    cosine: float
    inserted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def prompt(row: Row) -> str:
    """What a request says of an item: its question, or the document."""
    return str(row["question"] if "question" in row else row["text"])


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def match(request: Role, stored: Role) -> list[Match]:
    """The nearest stored item of each request item, by the cosine of character 3- to 5-grams weighted by TF-IDF."""
    asked, held = [prompt(row) for row in request.rows], [prompt(row) for row in stored.rows]
    weigh = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), dtype=np.float32)
    bank, wanted = weigh.fit_transform(held).T.tocsr(), weigh.transform(asked)
    found = []
    for first in range(0, len(asked), ROWS):
        cosines = (wanted[first : first + ROWS] @ bank).toarray()
        for row, (best, cosine) in enumerate(zip(cosines.argmax(1).tolist(), cosines.max(1).tolist()), first):
            near = cosine >= ACCEPT
            found.append(
                Match(row, best if near else None, cosine, *(changes(held[best], asked[row]) if near else ()))
            )
    return found


def changes(before: str, after: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(words put in, words taken out) between two texts."""
    old, new = words(before), words(after)
    steps = [
        step
        for step in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        if step[0] != "equal"
    ]
    put = tuple(word for *_, first, last in steps for word in new[first:last])
    return put, tuple(word for _, first, last, *_ in steps for word in old[first:last])
