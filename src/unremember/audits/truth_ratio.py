"""Truth ratio: how likely wrong answers are beside a right one."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from unremember.audits.measurement import Measurement, of_examples
from unremember.audits.probability import by_row, has
from unremember.data.split import Split
from unremember.observe.records import Observations, Want
from unremember.registry import audits

TINY = 1e-10


def correct(split: Split, role: str) -> str:
    """The column of the right answer: the paraphrase where rows have one, else the answer itself."""
    return "paraphrased_answer" if has(split, role, "paraphrased_answer") else "answer"


def wanted(split: Split, role: str) -> list[Want]:
    if not has(split, role, "perturbed_answers"):
        return []
    return [Want("scores", role, correct(split, role)), Want("scores", role, "perturbed_answers")]


def mean_by_row(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """float64[n]: the mean over the texts of each row; NaN for a row without any."""
    return by_row(values, rows, n) / np.maximum(1, np.bincount(rows, minlength=n))


def ratio(
    right_loss: np.ndarray, wrong_loss: np.ndarray, rows: np.ndarray, mean: str = "geometric"
) -> np.ndarray:
    """float64[n]: mean probability of the wrong answers over that of the right one, in nats of mean loss."""
    if mean == "geometric":
        wrong = np.exp(-mean_by_row(wrong_loss, rows, len(right_loss)))
    else:
        wrong = mean_by_row(np.exp(-wrong_loss), rows, len(right_loss))
    return wrong / (np.exp(-right_loss) + TINY)


def ratios(seen: Observations, role: str, mean: str = "geometric") -> np.ndarray:
    """float64[n]: the truth ratio of each row of a role."""
    wrong = seen.scores(role, "perturbed_answers")
    return ratio(seen.scores(role, correct(seen.split, role)).loss, wrong.loss, wrong.rows, mean)


def log_ratios(seen: Observations, role: str) -> np.ndarray:
    """float64[n]: log of the (geometric) truth ratio of each row, exact where both probabilities vanish."""
    wrong = seen.scores(role, "perturbed_answers")
    right_loss = seen.scores(role, correct(seen.split, role)).loss
    return right_loss - mean_by_row(wrong.loss, wrong.rows, len(right_loss))


def preference(seen: Observations, role: str) -> Measurement:
    """Mean of 1/(1 + R): how far the right answer is preferred, near 1 knowledge, ½ none, near 0 avoidance."""
    values = (1 - np.tanh(log_ratios(seen, role) / 2)) / 2
    return of_examples("truth_preference", values, seen.split[role].groups(), "more_knowledge", seen, role)


def closer_to_1(values: np.ndarray) -> np.ndarray:
    return np.minimum(values, 1 / (values + TINY))


def true_better(values: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - values)


@audits.register(
    "truth_ratio",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("forget", "paraphrased_answer", "perturbed_answers", "oracle"),
    taxonomy="evaluation.forgetting",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class TruthRatio:
    """Mean of min(R, 1/R) over the forget set (R: wrong over right answers); near 1 where the truth is not preferred.

    The target is the oracle's value, not 1. Near 0 the truth is known or avoided: position and verdict are read from
    the mean of 1/(1 + R), which tells the two apart. ``mean`` averages the wrong answers' losses (geometric) or
    probabilities.
    """

    role: str = "forget"
    mean: Literal["geometric", "arithmetic"] = "geometric"

    def wants(self, split: Split) -> list[Want]:
        return wanted(split, self.role)

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        values = closer_to_1(ratios(seen, self.role, self.mean))
        return of_examples(
            "truth_ratio",
            values,
            seen.split[self.role].groups(),
            "less_knowledge",
            seen,
            self.role,
            axis=preference(seen, self.role),
        )
