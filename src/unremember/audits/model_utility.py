"""Model utility: the harmonic mean of nine figures over what must be retained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from unremember.audits.bootstrap import mean_draws
from unremember.audits.measurement import Measurement, with_draws
from unremember.audits.probability import has_options, probabilities, right_answers
from unremember.audits.rouge import recalls
from unremember.audits.truth_ratio import true_better, truth_ratio_requests, truth_ratios
from unremember.data.split import Split
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations
from unremember.registry import audits


def harmonic(parts: np.ndarray) -> np.ndarray:
    """Return the harmonic mean over the last axis; 0 where any part is 0 or below."""
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

    A figure that is not a number counts as 0, so a model that gives none has no utility; ``skipped`` counts
    them.
    """

    def requests(self, split: Split) -> list[TokenScores | Generations]:
        if not split.utility or not all(truth_ratio_requests(split, role) for role in split.utility):
            return []
        requests: list[TokenScores | Generations] = []
        for role in split.utility:
            requests += [right_answers(split, role), Generations(role), *truth_ratio_requests(split, role)]
        return requests

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        split = observations.split
        names, parts, draws, missing = [], [], [], 0
        for seed, role in enumerate(split.utility):
            figures = {
                "probability": probabilities(observations, role),
                "rouge": recalls(observations, role),
                "truth_ratio": true_better(truth_ratios(observations, role)),
            }
            for name, values in figures.items():
                missing += int(np.isnan(values).sum())
                values = np.nan_to_num(values)
                names.append(f"{role} {name}")
                parts.append(values.mean())
                draws.append(mean_draws(values, split[role].groups(), seed))
        blank = Measurement(
            "model_utility",
            None,
            n=sum(len(split[role]) for role in split.utility),
            higher_is="better_utility",
            skipped={"not a number, counted as 0": missing} if missing else {},
            artefact=observations.artefact,
            data=split.digest,
            extra={
                "parts": dict(zip(names, map(float, parts))),
                "normalised": [role for role in split.utility if has_options(split, role)],
            },
        )
        return with_draws(blank, float(harmonic(np.array(parts))), harmonic(np.stack(draws, -1)))
