"""MUSE's memorisation of documents: how a passage is continued, and what is known of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from unremember.audits.measurement import Measurement, measure_mean, name_with_role
from unremember.audits.probability import has
from unremember.audits.rouge import best_scores, has_words, rouge_scorer
from unremember.data.cleaning import ALIASES
from unremember.data.split import Split
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.truncated_answers import TruncatedAnswers
from unremember.observe.records import Observations
from unremember.registry import audits

MUSE_PAPER = {
    "paper": "MUSE: Machine Unlearning Six-Way Evaluation for Language Models",
    "arxiv": "2407.06460",
}
_END_OF_ANSWER = re.compile(r"\n\s*\n|\n?Question:|\nQuestion")


def rouge_f1(truth: str, generation: str) -> float:
    """Return ROUGE-L F1 without stemming; NaN where the truth has no word that could agree."""
    if not has_words(truth):
        return float("nan")
    return float(rouge_scorer(False).score(truth, generation)["rougeL"].fmeasure)


@audits.register(
    "verbatim_memorisation",
    needs=("verbmem", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
    default=False,
    **MUSE_PAPER,
)
@dataclasses.dataclass(frozen=True)
class VerbatimMemorisation:
    """ROUGE-L F1 of the greedy continuation with the true one, over passages of the forget set.

    Args:
        role: The role of the passages.
        limit: The most tokens of either continuation.
    """

    role: str = "verbmem"
    limit: int = 128

    def requests(self, split: Split) -> list[Generations | TruncatedAnswers]:
        if not has(split, self.role, "answer"):
            return []
        return [Generations(self.role, self.limit), TruncatedAnswers(self.role, self.limit)]

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        truths = observations[TruncatedAnswers(self.role, self.limit)]
        generations = observations[Generations(self.role, self.limit)]
        values = best_scores(rouge_f1, truths, generations)
        name = name_with_role("verbatim_memorisation", self.role, "verbmem")
        return measure_mean(name, values, observations, self.role, access="text")


@audits.register(
    "knowledge_memorisation",
    needs=("knowmem", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
    default=False,
    **MUSE_PAPER,
)
@dataclasses.dataclass(frozen=True)
class KnowledgeMemorisation:
    """ROUGE-L F1 of a short answer, cut at a blank line or a next question, with the true answer.

    Args:
        role: The role of the questions.
        limit: The most tokens of an answer.
        higher_is: ``better_utility`` for questions on what was to be retained.
    """

    role: str = "knowmem"
    limit: int = 32
    higher_is: Literal["more_knowledge", "better_utility"] = "more_knowledge"

    def requests(self, split: Split) -> list[Generations]:
        return [Generations(self.role, self.limit)] if has(split, self.role, "answer") else []

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        truths = observations.split[self.role].column(ALIASES)
        generations = observations[Generations(self.role, self.limit)]
        answers = [_END_OF_ANSWER.split(text)[0].strip() for text in generations]
        values = best_scores(rouge_f1, truths, answers)
        name = name_with_role("knowledge_memorisation", self.role, "knowmem")
        return measure_mean(name, values, observations, self.role, self.higher_is, access="text")
