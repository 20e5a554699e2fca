"""Forget quality: can the truth ratios be told from a retrained oracle's?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy.special import gammaln
from scipy.stats import ks_2samp

from unremember.audits.measurement import NO_ORACLE, Measurement
from unremember.audits.truth_ratio import log_ratios, preference, wanted
from unremember.data.split import Split
from unremember.observe.records import Observations, Want
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
    """log10 p where p itself is below the smallest float.

    Disjoint samples: 2/C(n + m, n). Equal sizes: 2·C(2n, n - n·distance)/C(2n, n), the leading term of the exact sum.
    Else the leading term of the limit, 2·exp(-2·distance²·nm/(n + m)).
    """
    if n == m or distance >= 1.0:
        far = log_choose(n + m, n - round(n * distance)) - log_choose(n + m, n)
    else:
        far = -2 * distance**2 * n * m / (n + m)
    return (math.log(2) + far) / math.log(10)


def log_choose(n: int, k: int) -> float:
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

    With several oracles it is the median p over them (the lower of two), an oracle being tested against the others:
    no oracle is privileged, and the oracles' own values say what retraining alone gives. The test takes rows as
    independent, which those of one subject are not, and its power grows with their number: p-values of forget sets
    of different sizes do not compare.
    """

    role: str = "forget"

    def wants(self, split: Split) -> list[Want]:
        return wanted(split, self.role)

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        blank = Measurement("forget_quality", None, artefact=seen.artefact, data=seen.split[self.role].digest)
        if not oracles:
            return dataclasses.replace(blank, reason=NO_ORACLE)
        mine = log_ratios(seen, self.role)
        references = [log_ratios(o, self.role) for o in oracles if o.artefact != seen.artefact] or [mine]
        if not all(np.isfinite(values).all() for values in (mine, *references)):
            return dataclasses.replace(blank, reason="a truth ratio is not finite")
        tests = sorted((ks(mine, reference) for reference in references), key=lambda test: test[1]["log10_p"])
        p, extra = tests[(len(tests) - 1) // 2]
        return dataclasses.replace(blank, value=p, n=len(mine), extra=extra, axis=preference(seen, self.role))
