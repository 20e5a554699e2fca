"""Probability of the true answer in other words: what a model that only lost one wording still knows."""

from __future__ import annotations

import dataclasses

import numpy as np

from unremember.audits.measurement import Measurement, of_examples
from unremember.audits.probability import has
from unremember.audits.truth_ratio import mean_by_row
from unremember.data.split import Split
from unremember.observe.records import Observations, Want
from unremember.registry import audits


@audits.register(
    "paraphrase_probability",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=("forget", "paraphrased_answer", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
    default=False,
)
@dataclasses.dataclass(frozen=True)
class ParaphraseProbability:
    """Mean per-token probability of the answer's paraphrase; where a row has several, their mean."""

    role: str = "forget"

    def wants(self, split: Split) -> list[Want]:
        return (
            [Want("scores", self.role, "paraphrased_answer")]
            if has(split, self.role, "paraphrased_answer")
            else []
        )

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        scores, groups = seen.scores(self.role, "paraphrased_answer"), seen.split[self.role].groups()
        values = mean_by_row(np.exp(-scores.loss), scores.rows, len(groups))
        return of_examples("paraphrase_probability", values, groups, "more_knowledge", seen, self.role)
