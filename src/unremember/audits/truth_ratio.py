"""Truth ratio: the probability of wrong answers over that of a right one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from unremember.audits.measurement import Measurement, measure_mean
from unremember.audits.probability import best_by_row, has, right_answers, sum_by_row
from unremember.data.split import Split
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations
from unremember.registry import audits

_EPSILON = 1e-10


def right_request(split: Split, role: str) -> TokenScores:
    """Return the scores of the right answer: of the paraphrase where rows have one, else of the answer."""
    if has(split, role, "paraphrased_answer"):
        return TokenScores(role, "paraphrased_answer")
    return right_answers(split, role)


def right_losses(observations: Observations, role: str) -> np.ndarray:
    """Return float64[n], the loss of each right answer: the mean over paraphrases, the least over aliases."""
    request, n = right_request(observations.split, role), len(observations.split[role])
    records = observations[request]
    if request.text == "paraphrased_answer":
        return mean_by_row(records.loss, records.rows, n)
    return -best_by_row(-records.loss, records.rows, n)


def truth_ratio_requests(split: Split, role: str) -> list[TokenScores]:
    """Return the observations of a truth ratio; none where the rows have no wrong answers."""
    if not has(split, role, "perturbed_answers"):
        return []
    return [right_request(split, role), TokenScores(role, "perturbed_answers")]


def mean_by_row(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Return float64[n], the mean over the texts of each row; NaN for a row without any."""
    return sum_by_row(values, rows, n) / np.maximum(1, np.bincount(rows, minlength=n))


def truth_ratio(
    right_loss: np.ndarray, wrong_loss: np.ndarray, rows: np.ndarray, mean: str = "geometric"
) -> np.ndarray:
    """Return float64[n], the mean probability of each row's wrong answers over that of its right one.

    Args:
        right_loss: float64[n], the mean loss of each right answer, in nats.
        wrong_loss: float64[m], that of each wrong answer.
        rows: int64[m], the row of each wrong answer.
        mean: ``geometric`` averages the losses of the wrong answers, anything else their probabilities.
    """
    if mean == "geometric":
        wrong = np.exp(-mean_by_row(wrong_loss, rows, len(right_loss)))
    else:
        wrong = mean_by_row(np.exp(-wrong_loss), rows, len(right_loss))
    return wrong / (np.exp(-right_loss) + _EPSILON)


def truth_ratios(observations: Observations, role: str, mean: str = "geometric") -> np.ndarray:
    """Return float64[n], the truth ratio of each row of a role."""
    wrong = observations[TokenScores(role, "perturbed_answers")]
    return truth_ratio(right_losses(observations, role), wrong.loss, wrong.rows, mean)


def log_truth_ratios(observations: Observations, role: str) -> np.ndarray:
    """Return float64[n], the log of each (geometric) truth ratio, exact where both probabilities vanish."""
    wrong = observations[TokenScores(role, "perturbed_answers")]
    right = right_losses(observations, role)
    return right - mean_by_row(wrong.loss, wrong.rows, len(right))


def truth_preference(observations: Observations, role: str) -> Measurement:
    """Measure the mean of 1/(1 + R): near 1 the right answer is known, at ½ unknown, near 0 avoided."""
    values = (1 - np.tanh(log_truth_ratios(observations, role) / 2)) / 2
    return measure_mean("truth_preference", values, observations, role)


def closer_to_1(ratios: np.ndarray) -> np.ndarray:
    """Return min(R, 1/R): 1 where right and wrong answers are equally likely."""
    return np.minimum(ratios, 1 / (ratios + _EPSILON))


def true_better(ratios: np.ndarray) -> np.ndarray:
    """Return max(0, 1 - R): near 1 where the right answer is far likelier."""
    return np.maximum(0, 1 - ratios)


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
    """Mean of min(R, 1/R), R wrong over right answers: near 1 where the truth is not preferred.

    The target is the oracle's value, not 1. Near 0 the truth is known or avoided: position and verdict are
    read from the mean of 1/(1 + R), which tells the two apart.

    Args:
        role: The role that is measured.
        mean: Whether to average the losses of the wrong answers (geometric) or their probabilities
            (arithmetic).
    """

    role: str = "forget"
    mean: Literal["geometric", "arithmetic"] = "geometric"

    def requests(self, split: Split) -> list[TokenScores]:
        return truth_ratio_requests(split, self.role)

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        values = closer_to_1(truth_ratios(observations, self.role, self.mean))
        axis = truth_preference(observations, self.role)
        return measure_mean("truth_ratio", values, observations, self.role, "less_knowledge", axis=axis)
