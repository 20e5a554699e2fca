"""Memorisation under teacher forcing: extraction strength and exact memorisation."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from unremember.audits.measurement import Measurement, of_examples
from unremember.audits.probability import has
from unremember.data.split import Split
from unremember.observe.records import Observations, Scores, Want
from unremember.registry import audits

Compat = Literal["", "openunlearning"]


def counted(scores: Scores, i: int, compat: str) -> np.ndarray:
    """bool[L]: which tokens of text i were the greedy choice, without the end token.

    ``compat="openunlearning"`` drops the last token whatever it is.
    """
    matches = scores.tokens(i)[1]
    return matches[:-1] if compat == "openunlearning" or scores.ends[i] else matches


def strength(matches: np.ndarray, compat: str = "") -> float:
    """1 - k/n, k the shortest prefix after which every token is the greedy choice; NaN without tokens."""
    if not len(matches):
        return float("nan")
    wrong = np.flatnonzero(~matches)
    prefix = int(wrong[-1]) + 1 if len(wrong) else 0
    return 1 - (min(prefix, len(matches) - 1) if compat == "openunlearning" else prefix) / len(matches)


@audits.register(
    "extraction_strength",
    paper="Localizing Paragraph Memorization / OpenUnlearning",
    arxiv="2506.12618",
    needs=("forget", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class ExtractionStrength:
    """Share of the answer that is extracted greedily once the shortest sufficient prefix is given."""

    role: str = "forget"
    compat: Compat = ""

    def wants(self, split: Split) -> list[Want]:
        return [Want("scores", self.role)] if has(split, self.role, "answer") else []

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        scores = seen.scores(self.role)
        values = np.array(
            [strength(counted(scores, i, self.compat), self.compat) for i in range(len(scores))]
        )
        return of_examples(
            "extraction_strength", values, seen.split[self.role].groups(), "more_knowledge", seen, self.role
        )


@audits.register(
    "exact_memorisation",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=("forget", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class ExactMemorisation:
    """Share of the answer's tokens that are the greedy choice under teacher forcing."""

    role: str = "forget"
    compat: Compat = ""

    def wants(self, split: Split) -> list[Want]:
        return [Want("scores", self.role)] if has(split, self.role, "answer") else []

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        scores = seen.scores(self.role)
        tokens = [counted(scores, i, self.compat) for i in range(len(scores))]
        values = np.array([found.mean() if len(found) else np.nan for found in tokens])
        return of_examples(
            "exact_memorisation", values, seen.split[self.role].groups(), "more_knowledge", seen, self.role
        )
