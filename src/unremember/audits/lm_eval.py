"""Any task of lm-eval as an audit: multiple choice of WMDP and MMLU, or one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from unremember.audits.measurement import Measurement, measure_mean_of_values
from unremember.data.split import Split
from unremember.observe.kinds.harness_scores import HarnessScores
from unremember.observe.records import Observations
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

    Args:
        task: The name of the task.
        metric: The metric of each question.
        folder: A folder with tasks of your own.
        limit: Take the first questions of each task; 0 for all.
        higher_is: ``more_knowledge`` where the questions are on what was to be forgotten.
    """

    task: str
    metric: str = "acc"
    folder: str = ""
    limit: int = 0
    higher_is: Literal["more_knowledge", "better_utility"] = "better_utility"

    def request(self) -> HarnessScores:
        """Return the one observation that the audit reads."""
        return HarnessScores(self.task, self.metric, self.folder, self.limit)

    def requests(self, split: Split) -> list[HarnessScores]:
        return [self.request()]

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        values = observations[self.request()]
        questions = [str(i) for i in range(len(values))]
        data = f"lm-eval {self.task}"
        return measure_mean_of_values(
            self.task, values, questions, observations.artefact, data, self.higher_is
        )
