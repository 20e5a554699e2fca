"""Tiers 1 and 2: does a request use a word, beginning or end more often than texts of its kind do?

Own tests. Both compare the request with clean requests: as many whole subjects, drawn from the reference. A
null of single items would be too narrow, because the items of a subject share their words.
"""

from __future__ import annotations

import dataclasses
import hashlib
from functools import lru_cache

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from unremember.data.split import Role
from unremember.plan.canonical import request_text, split_words

_POLITE_WORDS = "tell explain describe know want thank thanks kindly help let ask question answer"
_THIRD_PERSON = "he him his himself she her hers herself they them their theirs themselves it its itself"
COMMON_WORDS = tuple(sorted((ENGLISH_STOP_WORDS | set(_POLITE_WORDS.split())) - set(_THIRD_PERSON.split())))
"""The tested words: common in any request, whatever its subject. Third-person pronouns are not."""
COMMON_WORDS_DIGEST = hashlib.sha256(" ".join(COMMON_WORDS).encode()).hexdigest()
_CLEAN_REQUESTS = 300
"""Clean requests that are drawn."""
_EDGE_WORDS = 3
"""The most words of a beginning or end."""


@dataclasses.dataclass(frozen=True)
class Wording:
    """The common words and the edges of n texts.

    Args:
        digest: The digest of the role that they are of.
        marks: bool[n, W], which of the W common words each text contains.
        subjects: int64[n] in 0 … S - 1, whom each text is about.
        edges: int64[n, 2 · 3], numbers that stand for its beginning and end of 1, 2 and 3 words.
    """

    digest: str
    marks: np.ndarray = dataclasses.field(compare=False, repr=False)
    subjects: np.ndarray = dataclasses.field(compare=False, repr=False)
    edges: np.ndarray = dataclasses.field(compare=False, repr=False)

    @property
    def subject_count(self) -> int:
        """The number of subjects."""
        return int(self.subjects.max()) + 1

    def take(self, rows: np.ndarray) -> Wording:
        """Return the wording of some of the texts."""
        subjects = np.unique(self.subjects[rows], return_inverse=True)[1]
        return Wording("", self.marks[rows], subjects, self.edges[rows])


def extract_wording(role: Role, subjects: list[str] | None = None) -> Wording:
    """Extract the wording of a role's texts.

    Args:
        role: The role.
        subjects: Whom each row is about; None: its ``entity``.
    """
    column_of = {word: i for i, word in enumerate(COMMON_WORDS)}
    marks = np.zeros((len(role), len(COMMON_WORDS)), dtype=bool)
    edge_numbers: dict[tuple[str, ...], int] = {}
    edges = np.zeros((len(role), 2 * _EDGE_WORDS), dtype=np.int64)
    for i, row in enumerate(role.rows):
        words = split_words(request_text(row))
        marks[i, [column_of[word] for word in words if word in column_of]] = True
        row_edges = [tuple(edge) for n in range(1, _EDGE_WORDS + 1) for edge in (words[:n], words[-n:])]
        edges[i] = [edge_numbers.setdefault(edge, len(edge_numbers)) for edge in row_edges]
    subject_numbers = np.unique(subjects or role.groups(), return_inverse=True)[1]
    return Wording(role.digest, marks, subject_numbers, edges)


def word_excess(request: Wording, counts: np.ndarray, n: int) -> np.ndarray:
    """Measure how far each word's share in the request is above its share in other texts.

    The measure is (2 asin √p₁ − 2 asin √p₀) · √items, with p₁ and p₀ the two shares.

    Args:
        request: The request.
        counts: int64[W], how many of the other texts contain each word.
        n: The number of other texts.

    Returns:
        float64[W]; -∞ for a word in fewer than half of the request's subjects.
    """
    share, usual_share = request.marks.mean(0), (counts + 3 / 8) / (n + 3 / 4)
    z = 2 * (np.arcsin(np.sqrt(share)) - np.arcsin(np.sqrt(usual_share))) * np.sqrt(len(request.marks))
    in_subject = np.zeros((request.subject_count, request.marks.shape[1]), dtype=bool)
    np.logical_or.at(in_subject, request.subjects, request.marks)
    return np.where(in_subject.mean(0) >= 0.5, z, -np.inf)


def edge_shares(request: Wording) -> np.ndarray:
    """Return float64[2 · 3]: the share of items with the commonest beginning, and end, of each length."""
    return np.array([np.bincount(column).max() for column in request.edges.T]) / len(request.edges)


@dataclasses.dataclass(frozen=True)
class NullDistribution:
    """The statistics of clean requests.

    Args:
        excess: float64[draws], the largest word excess of each.
        shares: float64[draws, 2 · 3], the edge shares of each.
    """

    excess: np.ndarray
    shares: np.ndarray

    def shape(self, shares: np.ndarray) -> np.ndarray:
        """Return float64[…]: the largest edge share, in standard deviations above that of clean requests."""
        deviation = np.maximum(self.shares.std(0), 1e-3)
        return ((shares - self.shares.mean(0)) / deviation).max(-1)

    def lines(self) -> tuple[float, float]:
        """Return the 95 % and the 99 % quantile of the excess."""
        low, high = np.quantile(self.excess, (0.95, 0.99))
        return float(low), float(high)


@lru_cache(64)
def null_distribution(reference: Wording, subjects: int, items: int, seed: int = 0) -> NullDistribution:
    """Draw clean requests from a reference, and compare each with the subjects that it left out.

    Args:
        reference: The wording of ordinary texts.
        subjects: The whole subjects of a request.
        items: The most items of a subject.
        seed: The seed of the draws.
    """
    rng = np.random.default_rng([seed, subjects, items])
    rows_of = [np.flatnonzero(reference.subjects == subject) for subject in range(reference.subject_count)]
    excess, shares = [], []
    for _ in range(_CLEAN_REQUESTS):
        chosen = [rows_of[subject] for subject in rng.choice(len(rows_of), subjects, replace=False)]
        all_rows = np.concatenate(chosen)
        request = reference.take(np.concatenate([rng.permutation(rows)[:items] for rows in chosen]))
        other_counts = reference.marks.sum(0) - reference.marks[all_rows].sum(0)
        excess.append(word_excess(request, other_counts, len(reference.marks) - len(all_rows)).max())
        shares.append(edge_shares(request))
    return NullDistribution(np.array(excess), np.array(shares))
