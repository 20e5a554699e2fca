"""Tier 0: match every item of a request with a stored text. This both detects an attack and undoes it."""

from __future__ import annotations

import dataclasses
import difflib
import re

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from unremember.data.split import Role, Row

_ACCEPTED_COSINE = 0.7
"""The cosine from which an item is the stored one. On TOFU the 5 % quantile of salted items is 0.82; the 95 %
quantile of questions that were never trained on is 0.60."""
_BATCH_ROWS = 256
"""Items that are compared at once."""


@dataclasses.dataclass(frozen=True)
class Match:
    """An item of a request and the stored row that is nearest to it.

    Args:
        row: The item's number in the request.
        stored: The number of the stored row; None where the cosine is too low: the item is not found.
        cosine: How similar the two are.
        inserted: The words of the item that the stored text lacks, in order.
        removed: The words of the stored text that the item lacks, in order.
    """

    row: int
    stored: int | None
    cosine: float
    inserted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def request_text(row: Row) -> str:
    """Return what a request says of an item: its question, or the document."""
    return str(row["question"] if "question" in row else row["text"])


def split_words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def match_stored(request: Role, stored: Role) -> list[Match]:
    """Match each item of a request with the nearest stored row.

    Texts are compared by the cosine of their character 3- to 5-grams, weighted by TF-IDF.
    """
    request_texts = [request_text(row) for row in request.rows]
    stored_texts = [request_text(row) for row in stored.rows]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), dtype=np.float32)
    stored_vectors = vectorizer.fit_transform(stored_texts).T.tocsr()
    request_vectors = vectorizer.transform(request_texts)
    matches = []
    for start in range(0, len(request_texts), _BATCH_ROWS):
        cosines = (request_vectors[start : start + _BATCH_ROWS] @ stored_vectors).toarray()
        best, highest = cosines.argmax(1).tolist(), cosines.max(1).tolist()
        for row, (nearest, cosine) in enumerate(zip(best, highest), start):
            if cosine >= _ACCEPTED_COSINE:
                changes = word_changes(stored_texts[nearest], request_texts[row])
                matches.append(Match(row, nearest, cosine, *changes))
            else:
                matches.append(Match(row, None, cosine))
    return matches


def word_changes(before: str, after: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (words inserted, words removed) between two texts, in order."""
    old, new = split_words(before), split_words(after)
    inserted: list[str] = []
    removed: list[str] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            removed += old[i:j]
            inserted += new[k:m]
    return tuple(inserted), tuple(removed)
