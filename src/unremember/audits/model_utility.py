"""Model utility: the harmonic mean of nine figures over what must be kept."""

from __future__ import annotations

import dataclasses

import numpy as np

from unremember.audits.bootstrap import mean_draws
from unremember.audits.measurement import Measurement, with_draws
from unremember.audits.probability import options, probabilities
from unremember.audits.rouge import recalls
from unremember.audits.truth_ratio import ratios, true_better, wanted
from unremember.data.split import Split
from unremember.observe.records import Observations, Want
from unremember.registry import audits


def harmonic(parts: np.ndarray) -> np.ndarray:
    """Harmonic mean over the last axis; 0 where any part is 0 or below."""
    safe = np.where(parts > 0, parts, 1.0)
    return np.where((parts > 0).all(-1), parts.shape[-1] / (1 / safe).sum(-1), 0.0)


@audits.register(
    "model_utility",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("utility roles", "perturbed_answers"),
    taxonomy="evaluation.retaining",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class ModelUtility:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio over each utility role; 0 if any is 0.

    A figure that is not a number counts as 0, so a model that gives none has no utility; ``skipped`` counts them.
    """

    def wants(self, split: Split) -> list[Want]:
        if not split.utility or not all(wanted(split, role) for role in split.utility):
            return []
        return [
            want
            for role in split.utility
            for want in (Want("scores", role), Want("generations", role), *wanted(split, role))
        ]

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        names, parts, draws, missing = [], [], [], 0
        for seed, role in enumerate(seen.split.utility):
            groups = seen.split[role].groups()
            figures = {
                "probability": probabilities(seen, role),
                "rouge": recalls(seen, role),
                "truth_ratio": true_better(ratios(seen, role)),
            }
            for name, values in figures.items():
                missing += int(np.isnan(values).sum())
                values = np.nan_to_num(values)
                names.append(f"{role} {name}")
                parts.append(values.mean())
                draws.append(mean_draws(values, groups, seed))
        extra = {
            "parts": dict(zip(names, map(float, parts))),
            "normalised": [r for r in seen.split.utility if options(seen.split, r)],
        }
        n = sum(len(seen.split[role]) for role in seen.split.utility)
        skipped = {"not a number, counted as 0": missing} if missing else {}
        blank = Measurement(
            "model_utility",
            None,
            n=n,
            higher_is="better_utility",
            skipped=skipped,
            artefact=seen.artefact,
            data=seen.split.digest,
            extra=extra,
        )
        return with_draws(blank, float(harmonic(np.array(parts))), harmonic(np.stack(draws, -1)))
