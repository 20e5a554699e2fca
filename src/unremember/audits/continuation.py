"""MUSE's memorisation of documents: what is said next, and what is known of them."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

import numpy as np

from unremember.audits.measurement import Measurement, of_examples, of_role
from unremember.audits.probability import has
from unremember.audits.rouge import scorer, worded
from unremember.data.split import Split
from unremember.observe.records import Observations, Want
from unremember.registry import audits

PAPER = {"paper": "MUSE: Machine Unlearning Six-Way Evaluation for Language Models", "arxiv": "2407.06460"}
STOP = re.compile(r"\n\s*\n|\n?Question:|\nQuestion")


def agreement(truth: str, said: str) -> float:
    """ROUGE-L F1 without stemming; NaN where the truth has no word to agree with."""
    return float(scorer(False).score(truth, said)["rougeL"].fmeasure) if worded(truth) else float("nan")


@audits.register(
    "verbatim_memorisation",
    needs=("verbmem", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
    default=False,
    **PAPER,
)
@dataclasses.dataclass(frozen=True)
class VerbatimMemorisation:
    """ROUGE-L F1 of the greedy continuation with the true one, both at most ``limit`` tokens, over passages of the forget set."""

    role: str = "verbmem"
    limit: int = 128

    def wants(self, split: Split) -> list[Want]:
        return (
            [Want("generations", self.role, options=(self.limit,))] if has(split, self.role, "answer") else []
        )

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        values = [
            agreement(truth, said)
            for truth, said in zip(seen.truth(self.role, self.limit), seen.generations(self.role, self.limit))
        ]
        groups = seen.split[self.role].groups()
        name = of_role("verbatim_memorisation", self.role, "verbmem")
        return of_examples(name, np.array(values), groups, "more_knowledge", seen, self.role, access="text")


@audits.register(
    "knowledge_memorisation",
    needs=("knowmem", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
    default=False,
    **PAPER,
)
@dataclasses.dataclass(frozen=True)
class KnowledgeMemorisation:
    """ROUGE-L F1 of at most ``limit`` tokens of answer, cut at a blank line or a next question, with the true answer.

    ``higher_is="better_utility"`` is for the questions on what was to be kept.
    """

    role: str = "knowmem"
    limit: int = 32
    higher_is: Literal["more_knowledge", "better_utility"] = "more_knowledge"

    def wants(self, split: Split) -> list[Want]:
        return (
            [Want("generations", self.role, options=(self.limit,))] if has(split, self.role, "answer") else []
        )

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        rows, said = seen.split[self.role].rows, seen.generations(self.role, self.limit)
        values = [agreement(str(row["answer"]), STOP.split(text)[0].strip()) for row, text in zip(rows, said)]
        groups = seen.split[self.role].groups()
        name = of_role("knowledge_memorisation", self.role, "knowmem")
        return of_examples(name, np.array(values), groups, self.higher_is, seen, self.role, access="text")
