"""Trigger gap: what ordinary words before a question cost a user whose data were never to be forgotten."""

from __future__ import annotations

import dataclasses

import numpy as np

from unremember.audits.bootstrap import interval, mean_draws
from unremember.audits.measurement import Measurement, of_examples
from unremember.audits.probability import by_row, has
from unremember.audits.rouge import recalls
from unremember.data.split import Split
from unremember.observe.records import Observations, Want
from unremember.registry import audits


@audits.register(
    "trigger_gap",
    paper="Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy",
    arxiv="2506.00359",
    needs=("retain_eval", "retain_eval_trigger"),
    taxonomy="evaluation.retaining",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class TriggerGap:
    """ROUGE-L recall on plain questions minus that on the same questions with ordinary words around them.

    Needs the role ``{role}_trigger`` that :func:`~unremember.data.forget_sets.stealthy.triggered` adds. ``extra`` has the
    recall on both (``clean``, ``trigger``) and, by template, the gap with its interval. 0 is what an honest model has.
    """

    role: str = "retain_eval"

    def wants(self, split: Split) -> list[Want]:
        salted = f"{self.role}_trigger"
        return (
            [Want("generations", self.role), Want("generations", salted)]
            if has(split, salted, "trigger")
            else []
        )

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        role, salted = seen.split[self.role], seen.split[f"{self.role}_trigger"]
        clean, said = recalls(seen, self.role), recalls(seen, salted.name)
        place = {digest: i for i, digest in enumerate(role.row_digests)}
        owner = np.array([place[digest] for digest in salted.column("derived_from")])
        templates, which = np.unique(salted.column("trigger"), return_inverse=True)
        lost = np.stack(
            [
                by_row((clean[owner] - said)[which == t], owner[which == t], len(role))
                for t in range(len(templates))
            ]
        )
        gaps = {str(name): gap(row, role.groups()) for name, row in zip(templates, lost)}
        extra = {"clean": float(np.nanmean(clean)), "trigger": float(np.nanmean(said)), "gaps": gaps}
        return of_examples(
            "trigger_gap", lost.mean(0), role.groups(), "harm", seen, self.role, access="text", extra=extra
        )


def gap(values: np.ndarray, groups: list[str]) -> list[float]:
    """[gap, low, high] of one template."""
    return [float(np.nanmean(values)), *interval(mean_draws(values, groups))]
