"""Forget quality: can the truth ratios be told from the retrained oracle's?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy.special import gammaln
from scipy.stats import ks_2samp

from unremember.audits.measurement import Measurement
from unremember.audits.truth_ratio import ratios, wanted
from unremember.data.split import Split
from unremember.observe.records import Seen, Want
from unremember.registry import audits


def ks(values: np.ndarray, others: np.ndarray) -> tuple[float, dict[str, Any]]:
    """p of the two-sided two-sample Kolmogorov–Smirnov test, with ``log10_p``, ``statistic`` and ``saturated``.

    Saturated means that the samples are disjoint: p stands at the floor 2/C(n + m, n), whatever lies between them.
    """
    found = ks_2samp(values, others)
    p, distance = float(found.pvalue), float(found.statistic)
    log = math.log10(p) if p > 0 else tail(len(values), len(others), distance)
    return p, {"log10_p": log, "statistic": distance, "saturated": distance >= 1.0}


def tail(n: int, m: int, distance: float) -> float:
    """log10 p where p itself is below the smallest float: exact for disjoint samples, else the leading term."""
    if distance >= 1.0:
        return float(math.log(2) - gammaln(n + m + 1) + gammaln(n + 1) + gammaln(m + 1)) / math.log(10)
    return (math.log(2) - 2 * distance**2 * n * m / (n + m)) / math.log(10)


@audits.register("forget_quality", paper="TOFU: A Task of Fictitious Unlearning for LLMs", arxiv="2401.06121",
                 needs=("forget", "paraphrased_answer", "perturbed_answers", "oracle"), fidelity="code")  # fmt: skip
@dataclasses.dataclass(frozen=True)
class ForgetQuality:
    """p-value of the Kolmogorov–Smirnov test between the truth ratios of the model and of the retrained oracle.

    The first oracle is the reference; another oracle's value shows what retraining alone gives. ``extra`` has
    ``median_ratio``, the model's median truth ratio, which tells on which side of the oracle it stands.
    """

    role: str = "forget"

    def wants(self, split: Split) -> list[Want]:
        return wanted(split, self.role)

    def measure(self, seen: Seen, oracles: list[Seen]) -> Measurement:
        blank = Measurement("forget_quality", None, artefact=seen.artefact, data=seen.split[self.role].digest)
        if not oracles:
            return dataclasses.replace(blank, reason="no retrained oracle to compare with")
        mine, reference = ratios(seen, self.role), ratios(oracles[0], self.role)
        if not (np.isfinite(mine).all() and np.isfinite(reference).all()):
            return dataclasses.replace(blank, reason="a truth ratio is not finite")
        p, extra = ks(mine, reference)
        return dataclasses.replace(blank, value=p, n=len(mine), extra={**extra, "median_ratio": float(np.median(mine))})
