"""Tiers 1 and 2: does a request use a common word, or a beginning or end, more often than texts of its kind do?

Own tests. Both are read against requests that are known to be clean: as many whole subjects, drawn from the reference.
A null of single items would be too narrow, for the items of a subject share their words.
"""

from __future__ import annotations

import dataclasses
import hashlib
from functools import lru_cache

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from unremember.data.split import Role
from unremember.plan.canonical import prompt, words

POLITE = "tell explain describe know want thank thanks kindly help let ask question answer"
THIRD_PERSON = "he him his himself she her hers herself they them their theirs themselves it its itself"
COMMON = tuple(sorted((ENGLISH_STOP_WORDS | set(POLITE.split())) - set(THIRD_PERSON.split())))
"""The words that are tested: common in any request, whatever it is about. Pronouns of the third person follow the subject."""
DIGEST = hashlib.sha256(" ".join(COMMON).encode()).hexdigest()
DRAWS = 300
EDGES = 3
"""Beginnings and ends of 1 … EDGES words are looked at."""


@dataclasses.dataclass(frozen=True)
class Wording:
    """The common words of n texts: ``marks`` bool[n, W], who they are about: ``subjects`` int64[n] in 0 … S - 1, and
    ``edges`` int64[n, 2 · EDGES], which number the beginnings and ends of 1, 2, 3 words."""

    digest: str
    marks: np.ndarray = dataclasses.field(compare=False, repr=False)
    subjects: np.ndarray = dataclasses.field(compare=False, repr=False)
    edges: np.ndarray = dataclasses.field(compare=False, repr=False)

    def take(self, rows: np.ndarray) -> Wording:
        """Some rows alone."""
        subjects = np.unique(self.subjects[rows], return_inverse=True)[1]
        return Wording("", self.marks[rows], subjects, self.edges[rows])


def wording(role: Role, subjects: list[str] | None = None) -> Wording:
    """The wording of a role's prompts; ``subjects`` are the rows' ``entity`` where none are given."""
    place = {word: i for i, word in enumerate(COMMON)}
    marks = np.zeros((len(role), len(COMMON)), dtype=bool)
    numbers: dict[tuple[str, ...], int] = {}
    edges = np.zeros((len(role), 2 * EDGES), dtype=np.int64)
    for i, row in enumerate(role.rows):
        said = words(prompt(row))
        marks[i, [place[word] for word in said if word in place]] = True
        ends = [tuple(part) for n in range(1, EDGES + 1) for part in (said[:n], said[-n:])]
        edges[i] = [numbers.setdefault(end, len(numbers)) for end in ends]
    return Wording(role.digest, marks, np.unique(subjects or role.groups(), return_inverse=True)[1], edges)


def excess(request: Wording, counts: np.ndarray, n: int) -> np.ndarray:
    """float64[W]: how far each word's share in the request is above that in n other texts, ``counts`` int64[W] of which
    have it: (2 asin √p₁ − 2 asin √p₀) · √items. A word in fewer than half of the request's subjects does not count (-∞).
    """
    share, usual = request.marks.mean(0), (counts + 3 / 8) / (n + 3 / 4)
    z = 2 * (np.arcsin(np.sqrt(share)) - np.arcsin(np.sqrt(usual))) * np.sqrt(len(request.marks))
    spoken = np.zeros((request.subjects.max() + 1, request.marks.shape[1]), dtype=bool)
    np.logical_or.at(spoken, request.subjects, request.marks)
    return np.where(spoken.mean(0) >= 0.5, z, -np.inf)


def shares(request: Wording) -> np.ndarray:
    """float64[2 · EDGES]: the share of items that have the commonest beginning, and end, of each length."""
    return np.array([np.bincount(column).max() for column in request.edges.T]) / len(request.edges)


@dataclasses.dataclass(frozen=True)
class Null:
    """What clean requests give: ``excess`` float64[DRAWS] of the largest z, ``shares`` float64[DRAWS, 2 · EDGES]."""

    excess: np.ndarray
    shares: np.ndarray

    def shape(self, found: np.ndarray) -> np.ndarray:
        """float64[…]: the largest share, in standard deviations of clean requests above their mean."""
        spread = np.maximum(self.shares.std(0), 1e-3)
        return ((found - self.shares.mean(0)) / spread).max(-1)

    def lines(self) -> tuple[float, float]:
        """The 95 % and the 99 % quantile of the excess."""
        low, high = np.quantile(self.excess, (0.95, 0.99))
        return float(low), float(high)


@lru_cache(64)
def null(reference: Wording, subjects: int, items: int, seed: int = 0) -> Null:
    """DRAWS clean requests: ``subjects`` whole subjects, at most ``items`` items of each, against all the other subjects."""
    rng = np.random.default_rng([seed, subjects, items])
    of = [np.flatnonzero(reference.subjects == subject) for subject in range(reference.subjects.max() + 1)]
    largest, common = [], []
    for _ in range(DRAWS):
        chosen = [of[subject] for subject in rng.choice(len(of), subjects, replace=False)]
        whole = np.concatenate(chosen)
        drawn = reference.take(np.concatenate([rng.permutation(rows)[:items] for rows in chosen]))
        rest = reference.marks.sum(0) - reference.marks[whole].sum(0)
        largest.append(excess(drawn, rest, len(reference.marks) - len(whole)).max())
        common.append(shares(drawn))
    return Null(np.array(largest), np.array(common))
