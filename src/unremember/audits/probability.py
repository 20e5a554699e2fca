"""Probability of the true answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from unremember.audits.measurement import Measurement, of_examples
from unremember.data.split import Split, value_of
from unremember.observe.records import Observations, Want
from unremember.registry import audits


def has(split: Split, role: str, column: str) -> bool:
    """Whether ``role`` has ``column``: a text, or a list (or array) of texts, that is not empty.

    One row that has it is enough: rows that lack it are then an error or a skipped example, not a silent change of
    what is measured.
    """
    return role in split and any(given(value_of(row, column)) for row in split[role].rows)


def given(value: Any) -> bool:
    return hasattr(value, "__len__") and len(value) > 0


def by_row(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """float64[n]: the sum over the texts of each row; NaN for a row without any."""
    return np.where(np.bincount(rows, minlength=n) > 0, np.bincount(rows, values, n), np.nan)


def probabilities(seen: Observations, role: str) -> np.ndarray:
    """float64[n]: exp(-mean loss) of the answer; over the options' sum where rows have options but no paraphrase."""
    true = np.exp(-seen.scores(role).loss)
    if not options(seen.split, role):
        return true
    wrong = seen.scores(role, "perturbed_answers")
    return true / (true + by_row(np.exp(-wrong.loss), wrong.rows, len(true)) + 1e-10)


def options(split: Split, role: str) -> bool:
    return has(split, role, "perturbed_answers") and not has(split, role, "paraphrased_answer")


@audits.register(
    "probability",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("forget", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class Probability:
    """Mean per-token probability of the true answer on a role."""

    role: str = "forget"

    def wants(self, split: Split) -> list[Want]:
        if not has(split, self.role, "answer"):
            return []
        wrong = [Want("scores", self.role, "perturbed_answers")] if options(split, self.role) else []
        return [Want("scores", self.role), *wrong]

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        values = probabilities(seen, self.role)
        return of_examples(
            "probability", values, seen.split[self.role].groups(), "more_knowledge", seen, self.role
        )
