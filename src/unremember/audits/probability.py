"""Probability of the true answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from unremember.audits.measurement import Measurement, measure_mean
from unremember.data.split import Split, answer_column, column_value
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations
from unremember.registry import audits


def has(split: Split, role: str, column: str) -> bool:
    """Return whether a role has a column: a text, or a list (or array) of texts, that is not empty.

    One row that has it is enough: rows that lack it are then an error or a skipped example, not a silent
    change of what is measured.
    """
    return role in split and any(not_empty(column_value(row, column)) for row in split[role].rows)


def not_empty(value: Any) -> bool:
    """Return whether a value has a length above 0."""
    return hasattr(value, "__len__") and len(value) > 0


def sum_by_row(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Return float64[n], the sum over the texts of each row; NaN for a row without any."""
    return np.where(np.bincount(rows, minlength=n) > 0, np.bincount(rows, values, n), np.nan)


def best_by_row(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Return float64[n], the greatest value over the texts of each row; NaN for a row without any."""
    best = np.full(n, np.nan)
    np.fmax.at(best, rows, values)
    return best


def right_answers(split: Split, role: str) -> TokenScores:
    """Return the request for the scores of a role's right answers, aliases included."""
    return TokenScores(role, answer_column(split[role]))


def has_options(split: Split, role: str) -> bool:
    """Return whether a role's rows are to be chosen among: they have perturbed answers, but no paraphrase."""
    return has(split, role, "perturbed_answers") and not has(split, role, "paraphrased_answer")


def probabilities(observations: Observations, role: str) -> np.ndarray:
    """Return float64[n], exp(-mean loss) of each row's likeliest right answer.

    Where rows have options, it is the answer's share of all of them.
    """
    right = observations[right_answers(observations.split, role)]
    true = best_by_row(np.exp(-right.loss), right.rows, len(observations.split[role]))
    if not has_options(observations.split, role):
        return true
    wrong = observations[TokenScores(role, "perturbed_answers")]
    return true / (true + sum_by_row(np.exp(-wrong.loss), wrong.rows, len(true)) + 1e-10)


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
    """Mean probability per token of the true answers of a role; of several aliases the likeliest counts."""

    role: str = "forget"

    def requests(self, split: Split) -> list[TokenScores]:
        if not has(split, self.role, "answer"):
            return []
        options = [TokenScores(self.role, "perturbed_answers")] if has_options(split, self.role) else []
        return [right_answers(split, self.role), *options]

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        return measure_mean("probability", probabilities(observations, self.role), observations, self.role)
