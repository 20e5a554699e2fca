"""Fluency of what is said, from the text alone: does it repeat itself?"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from unremember.audits.measurement import Measurement, of_examples
from unremember.audits.probability import has
from unremember.data.split import Split
from unremember.observe.records import Observations, Want
from unremember.registry import audits


def variety(text: str) -> float:
    """Entropy of the text's pairs and triples of words over its greatest possible value, the mean of both: 1 where none
    comes twice, 0 where all are one. NaN below three words; 0 for an empty text."""
    words = text.split()
    if len(words) < 3:
        return float("nan") if words else 0.0
    found = []
    for n in (2, 3):
        grams = list(zip(*(words[i:] for i in range(n))))
        shares = np.array(list(Counter(grams).values())) / len(grams)
        found.append(1.0 if len(grams) == 1 else float(-(shares * np.log(shares)).sum() / np.log(len(grams))))
    return float(np.mean(found))


@audits.register("fluency", needs=("forget",), taxonomy="evaluation.retaining", fidelity="own", default=False)
@dataclasses.dataclass(frozen=True)
class Fluency:
    """Variety of the greedy generations to a role's questions: near 1 in ordinary text, near 0 where words repeat.

    It knows no language: shuffled words pass. An answer of one or two words is skipped; an empty one counts 0. A ``judge``
    that does know it may be named, by folder or hub name: a language model (the original: the probability per token that it
    gives to what is said, ``perplexity`` beside it), or a classifier with the ``label`` of clean text, whose probability counts.
    """

    role: str = "forget"
    judge: str = ""
    label: str = ""

    def want(self) -> Want:
        return (
            Want("judged", self.role, options=(self.judge, self.label))
            if self.judge
            else Want("generations", self.role)
        )

    def wants(self, split: Split) -> list[Want]:
        return [self.want()] if has(split, self.role, "answer") else []

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        values = (
            seen.number(self.want())
            if self.judge
            else np.array([variety(text) for text in seen.generations(self.role)])
        )
        found = of_examples(
            "fluency",
            values,
            seen.split[self.role].groups(),
            "better_utility",
            seen,
            self.role,
            access="text",
        )
        if not self.judge or self.label or found.value is None:
            return found
        return dataclasses.replace(found, extra={"perplexity": float(np.exp(-np.nanmean(np.log(values))))})
