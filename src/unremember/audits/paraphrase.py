"""Probability of the true answer in other words: what a model that lost only one wording still knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from unremember.audits.measurement import Measurement, measure_mean
from unremember.audits.probability import has
from unremember.audits.truth_ratio import mean_by_row
from unremember.data.split import Split
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations
from unremember.registry import audits

_COLUMN = "paraphrased_answer"


@audits.register(
    "paraphrase_probability",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=("forget", _COLUMN, "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
    default=False,
)
@dataclasses.dataclass(frozen=True)
class ParaphraseProbability:
    """Mean probability per token of the answer's paraphrase; where a row has several, their mean."""

    role: str = "forget"

    def requests(self, split: Split) -> list[TokenScores]:
        return [TokenScores(self.role, _COLUMN)] if has(split, self.role, _COLUMN) else []

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        records = observations[TokenScores(self.role, _COLUMN)]
        rows = len(observations.split[self.role])
        values = mean_by_row(np.exp(-records.loss), records.rows, rows)
        return measure_mean("paraphrase_probability", values, observations, self.role)
