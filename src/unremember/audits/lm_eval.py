"""Any task of lm-eval as an audit: multiple choice of WMDP and MMLU, or one's own."""

from __future__ import annotations

import dataclasses
from typing import Literal

from unremember.audits.measurement import Measurement, of_values
from unremember.data.split import Split
from unremember.observe.records import Observations, Want
from unremember.registry import audits


@audits.register(
    "lm_eval",
    paper="Lessons from the Trenches on Reproducible Evaluation of Language Models",
    arxiv="2405.14782",
    needs=("oracle",),
    taxonomy="evaluation.retaining",
    fidelity="code",
    default=False,
)
@dataclasses.dataclass(frozen=True)
class LmEval:
    """Mean of a metric over the questions of an lm-eval task (``wmdp_bio``, ``mmlu`` …), by lm-eval itself.

    ``higher_is="more_knowledge"`` reads it between oracle and original, as what was to be forgotten; else it is a utility.
    ``folder`` holds tasks of your own; ``limit`` takes the first questions of each task.
    """

    task: str
    metric: str = "acc"
    folder: str = ""
    limit: int = 0
    higher_is: Literal["more_knowledge", "better_utility"] = "better_utility"

    def want(self) -> Want:
        return Want("harness", self.task, self.metric, (self.folder, self.limit))

    def wants(self, split: Split) -> list[Want]:
        return [self.want()]

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        values = seen.number(self.want())
        return of_values(
            self.task,
            values,
            [str(i) for i in range(len(values))],
            self.higher_is,
            seen,
            f"lm-eval {self.task}",
        )
