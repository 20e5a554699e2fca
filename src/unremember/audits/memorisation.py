"""Memorisation under teacher forcing: extraction strength and exact memorisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np

from unremember.audits.measurement import Measurement, measure_mean
from unremember.audits.probability import best_by_row, has, right_answers
from unremember.data.split import Split
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations, TokenRecords
from unremember.registry import audits

Compat = Literal["", "openunlearning"]


def memorised_shares(
    observations: Observations, role: str, compat: str, share: Callable[[np.ndarray], float]
) -> np.ndarray:
    """Return float64[n], the ``share`` of each row's best memorised right answer, from its greedy matches."""
    records = observations[right_answers(observations.split, role)]
    values = np.array([share(matches) for matches in greedy_matches(records, compat)])
    return best_by_row(values, records.rows, len(observations.split[role]))


def greedy_matches(records: TokenRecords, compat: str) -> list[np.ndarray]:
    """Return for each text bool[L]: which of its tokens are the greedy choice, without the end token.

    ``compat="openunlearning"`` drops the last token whatever it is.
    """
    matches = [records.tokens(i)[1] for i in range(len(records))]
    dropped = [compat == "openunlearning" or ends for ends in records.ends]
    return [hits[:-1] if drop else hits for hits, drop in zip(matches, dropped)]


def strength(matches: np.ndarray, compat: str = "") -> float:
    """Return 1 - k/n, k the shortest prefix after which all tokens are greedy choices; NaN without tokens."""
    if not len(matches):
        return float("nan")
    wrong = np.flatnonzero(~matches)
    prefix = int(wrong[-1]) + 1 if len(wrong) else 0
    return 1 - (min(prefix, len(matches) - 1) if compat == "openunlearning" else prefix) / len(matches)


def exactness(matches: np.ndarray) -> float:
    """Return the share of tokens that are greedy choices; NaN without tokens."""
    return float(matches.mean()) if len(matches) else float("nan")


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
    """Share of the answer that greedy decoding extracts once the shortest sufficient prefix is given.

    Args:
        role: The role whose answers are extracted.
        compat: ``openunlearning`` counts as that package does.
    """

    role: str = "forget"
    compat: Compat = ""

    def requests(self, split: Split) -> list[TokenScores]:
        return [right_answers(split, self.role)] if has(split, self.role, "answer") else []

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        share = partial(strength, compat=self.compat)
        values = memorised_shares(observations, self.role, self.compat, share)
        return measure_mean("extraction_strength", values, observations, self.role)


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
    """Share of the answer's tokens that are the greedy choice under teacher forcing.

    Args:
        role: The role whose answers are read.
        compat: ``openunlearning`` counts as that package does.
    """

    role: str = "forget"
    compat: Compat = ""

    def requests(self, split: Split) -> list[TokenScores]:
        return [right_answers(split, self.role)] if has(split, self.role, "answer") else []

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        values = memorised_shares(observations, self.role, self.compat, exactness)
        return measure_mean("exact_memorisation", values, observations, self.role)
