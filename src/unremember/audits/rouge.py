"""ROUGE-L recall of greedy generations against the true answer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from unremember.audits.measurement import Measurement, measure_mean
from unremember.audits.probability import has
from unremember.data.cleaning import ALIASES
from unremember.data.split import Split
from unremember.observe.kinds.generations import Generations
from unremember.observe.records import Observations
from unremember.registry import audits


@cache
def rouge_scorer(stems: bool) -> Any:
    """Return the scorer of ROUGE-L, with or without Porter stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stems)


def has_words(text: str) -> bool:
    """Return whether a text has a word of Latin letters or digits: the scorer recognises no other."""
    return bool(re.search("[a-z0-9]", text.lower()))


@lru_cache(2**16)
def recall(truth: str, generation: str) -> float:
    """Return ROUGE-L recall with Porter stemming; NaN where the truth has no word that could be recalled."""
    if not has_words(truth):
        return float("nan")
    return 1.0 if truth == generation else float(rouge_scorer(True).score(truth, generation)["rougeL"].recall)


def recalls(observations: Observations, role: str) -> np.ndarray:
    """Return float64[n], the ROUGE-L recall of each generation of a role."""
    return best_scores(recall, observations.split[role].column(ALIASES), observations[Generations(role)])


def best_scores(
    score: Callable[[str, str], float], truths: Iterable[Sequence[str]], generations: Iterable[str]
) -> np.ndarray:
    """Return float64[n], the score of each generation against the best of its right answers.

    It is NaN where no right answer has a score.
    """
    scores = [
        [score(str(truth), generation) for truth in aliases]
        for aliases, generation in zip(truths, generations)
    ]
    return np.array([np.fmax.reduce(row_scores) for row_scores in scores])


@audits.register(
    "rouge",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("forget", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class Rouge:
    """ROUGE-L recall (stemmed) of the greedy generation against the true answer, or its best alias."""

    role: str = "forget"

    def requests(self, split: Split) -> list[Generations]:
        return [Generations(self.role)] if has(split, self.role, "answer") else []

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        values = recalls(observations, self.role)
        return measure_mean("rouge", values, observations, self.role, access="text")
