"""Forget quality: can the truth ratios be told from a retrained oracle's?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import gammaln

from unremember.audits.measurement import NO_ORACLE, Measurement
from unremember.audits.truth_ratio import log_truth_ratios, truth_preference, truth_ratio_requests
from unremember.data.split import Split
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations
from unremember.registry import audits


def ks(first: np.ndarray, second: np.ndarray) -> tuple[float, dict[str, Any]]:
    """Test two samples for equal distributions (two-sided, Kolmogorov–Smirnov).

    Returns:
        p, and ``log10_p``, ``statistic`` and ``saturated``: whether the samples are disjoint, so that p
        stands at its floor 2/C(n + m, n) however far apart they lie.
    """
    from scipy.stats import ks_2samp  # slow to import, and every run on TOFU loads this file

    result = ks_2samp(first, second)
    p, distance = float(result.pvalue), float(result.statistic)
    log10_p = math.log10(p) if p > 0 else log10_of_tail(len(first), len(second), distance)
    return p, {"log10_p": log10_p, "statistic": distance, "saturated": distance >= 1.0}


def log10_of_tail(n: int, m: int, distance: float) -> float:
    """Return log10 p where p itself is below the smallest float.

    Disjoint samples: 2/C(n + m, n). Equal sizes: 2·C(2n, n - n·distance)/C(2n, n), the leading term of the
    exact sum. Else the leading term of the limit, 2·exp(-2·distance²·nm/(n + m)).
    """
    if n == m or distance >= 1.0:
        exponent = log_choose(n + m, n - round(n * distance)) - log_choose(n + m, n)
    else:
        exponent = -2 * distance**2 * n * m / (n + m)
    return (math.log(2) + exponent) / math.log(10)


def log_choose(n: int, k: int) -> float:
    """Return the natural log of the binomial coefficient C(n, k)."""
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


@audits.register(
    "forget_quality",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("forget", "paraphrased_answer", "perturbed_answers", "oracle"),
    taxonomy="evaluation.distance",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class ForgetQuality:
    """p-value of the Kolmogorov–Smirnov test between the truth ratios of the model and of a retrained oracle.

    With several oracles it is the median p over them (the lower of two). An oracle is tested against the
    others: no oracle is privileged, and the oracles' own values show what retraining alone gives. The test
    takes rows as independent, which those of one subject are not, and its power grows with their number: do
    not compare p-values of forget sets of different sizes.
    """

    role: str = "forget"

    def requests(self, split: Split) -> list[TokenScores]:
        return truth_ratio_requests(split, self.role)

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        data = observations.split[self.role].digest
        blank = Measurement("forget_quality", None, artefact=observations.artefact, data=data)
        if not oracles:
            return dataclasses.replace(blank, reason=NO_ORACLE)
        ratios = log_truth_ratios(observations, self.role)
        references = [
            log_truth_ratios(oracle, self.role)
            for oracle in oracles
            if oracle.weights != observations.weights
        ] or [ratios]
        if not all(np.isfinite(values).all() for values in (ratios, *references)):
            return dataclasses.replace(blank, reason="a truth ratio is not finite")
        tests = sorted(
            (ks(ratios, reference) for reference in references), key=lambda test: test[1]["log10_p"]
        )
        p, extra = tests[(len(tests) - 1) // 2]
        axis = truth_preference(observations, self.role)
        return dataclasses.replace(blank, value=p, n=len(ratios), extra=extra, axis=axis)
