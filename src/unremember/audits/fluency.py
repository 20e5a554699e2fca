"""Fluency of generations, from the text alone: does it repeat itself?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from unremember.audits.measurement import Measurement, measure_mean
from unremember.audits.probability import has
from unremember.data.split import Split
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.judge_scores import JudgeScores
from unremember.observe.records import Observations
from unremember.registry import audits


def variety(text: str) -> float:
    """Return how varied a text's words are: 1 where no pair or triple occurs twice, 0 where all are the same.

    It is the mean, over pairs and triples, of their entropy over its greatest possible value. A text of one
    or two words has NaN, an empty one 0.
    """
    words = text.split()
    if len(words) < 3:
        return float("nan") if words else 0.0
    entropies = []
    for n in (2, 3):
        grams = list(zip(*(words[i:] for i in range(n))))
        shares = np.array(list(Counter(grams).values())) / len(grams)
        entropy = float(-(shares * np.log(shares)).sum())
        entropies.append(1.0 if len(grams) == 1 else entropy / np.log(len(grams)))
    return float(np.mean(entropies))


@audits.register("fluency", needs=("forget",), taxonomy="evaluation.retaining", fidelity="own", default=False)
@dataclasses.dataclass(frozen=True)
class Fluency:
    """Variety of the generations to a role's questions: near 1 in ordinary text, near 0 if words repeat.

    It knows no language: shuffled words pass. Answers of one or two words are skipped, empty ones count 0. A
    judge that knows the language may be named instead.

    Args:
        role: The role whose questions are answered.
        judge: The folder or hub name of a language model, such as the original: the figure is the probability
            per token that it gives to the generations, with its ``perplexity``. Or of a classifier.
        label: The classifier's label for clean text, whose probability is the figure.
    """

    role: str = "forget"
    judge: str = ""
    label: str = ""

    def requests(self, split: Split) -> list[Generations | JudgeScores]:
        if not has(split, self.role, "answer"):
            return []
        return [JudgeScores(self.role, self.judge, self.label) if self.judge else Generations(self.role)]

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        if self.judge:
            values = observations[JudgeScores(self.role, self.judge, self.label)]
        else:
            values = np.array([variety(text) for text in observations[Generations(self.role)]])
        measurement = measure_mean(
            "fluency", values, observations, self.role, "better_utility", access="text"
        )
        if not self.judge or self.label or measurement.value is None:
            return measurement
        perplexity = float(np.exp(-np.nanmean(np.log(values))))
        return dataclasses.replace(measurement, extra={"perplexity": perplexity})
