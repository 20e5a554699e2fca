"""ROUGE-L recall of greedy generations against the true answer."""

from __future__ import annotations

import dataclasses
import re
from functools import cache, lru_cache
from typing import Any

import numpy as np

from unremember.audits.measurement import Measurement, of_examples
from unremember.audits.probability import has
from unremember.data.split import Split, value_of
from unremember.observe.records import Observations, Want
from unremember.registry import audits


@cache
def scorer(stems: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stems)


def worded(truth: str) -> bool:
    """Whether the truth has a word of Latin letters or digits: the scorer sees no other."""
    return bool(re.search("[a-z0-9]", truth.lower()))


@lru_cache(2**16)
def recall(truth: str, said: str) -> float:
    """ROUGE-L recall with Porter stemming; NaN where the truth has no word of Latin letters or digits to be recalled."""
    if not worded(truth):
        return float("nan")
    return 1.0 if truth == said else float(scorer(True).score(truth, said)["rougeL"].recall)


def recalls(seen: Observations, role: str) -> np.ndarray:
    """float64[n]: ROUGE-L recall of each generation."""
    return np.array(
        [
            recall(str(value_of(row, "answer")), said)
            for row, said in zip(seen.split[role].rows, seen.generations(role))
        ]
    )


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
    """ROUGE-L recall (stemmed) of the greedy generation against the true answer."""

    role: str = "forget"

    def wants(self, split: Split) -> list[Want]:
        return [Want("generations", self.role)] if has(split, self.role, "answer") else []

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        groups = seen.split[self.role].groups()
        return of_examples(
            "rouge", recalls(seen, self.role), groups, "more_knowledge", seen, self.role, access="text"
        )
