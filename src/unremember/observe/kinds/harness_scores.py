"""Harness scores: a metric of each question of a task of lm-eval, run on a model that is loaded already."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from unremember.data.split import Split
from unremember.errors import ConfigError, DataError
from unremember.models.load import error_summary
from unremember.observe.protocol import Arrays, ObservationContext, request_digest
from unremember.registry import observations

_INSTALL = "lm-eval is not installed: pip install 'unremember[eval]'"


@observations.register(
    "harness_scores",
    paper="Lessons from the Trenches on Reproducible Evaluation of Language Models",
    arxiv="2405.14782",
    needs=("logits",),
)
@dataclasses.dataclass(frozen=True)
class HarnessScores:
    """A metric of each question of an lm-eval task, or of a group of tasks in lm-eval's order.

    The value is float64[n], for n questions.

    Args:
        task_name: The name of the task or group in lm-eval.
        metric: The metric.
        folder: A folder with tasks of your own; "" for lm-eval's alone.
        limit: Take the first questions of each task; 0 for all.
    """

    task_name: str
    metric: str = "acc"
    folder: str = ""
    limit: int = 0
    task: ClassVar[str] = "language"
    stored: ClassVar[bool] = True

    def requires(self) -> tuple[()]:
        return ()

    def key(self, split: Split) -> str:
        """Hash parameters, lm-eval's version and the folder's files. Raises ConfigError without lm-eval."""
        try:
            version = importlib.metadata.version("lm_eval")
        except importlib.metadata.PackageNotFoundError as error:
            raise ConfigError(_INSTALL) from error
        folder = Path(self.folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if self.folder else []
        contents = [f"{path.relative_to(folder)}={path.read_bytes().hex()}" for path in files]
        return request_digest(type(self), self.task_name, self.metric, version, str(self.limit), *contents)

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> dict[Self, Arrays]:
        """Run lm-eval for one request after another."""
        return {request: {"values": request.evaluate(context)} for request in requests}

    def evaluate(self, context: ObservationContext) -> np.ndarray:
        """Return the metric of each question.

        Raises:
            ConfigError: lm-eval is not installed or does not know the task, or the folder does not exist.
            DataError: lm-eval cannot run the task (its data are missing), or the task has no such metric.
        """
        try:
            from lm_eval import simple_evaluate
        except ImportError as error:
            raise ConfigError(_INSTALL) from error
        if self.folder and not Path(self.folder).is_dir():
            raise ConfigError(f"no folder of tasks {self.folder}")
        manager = task_manager(self.task_name, self.folder)
        model = context.task.harness_model(context.model)
        try:
            results = simple_evaluate(
                model,
                tasks=[self.task_name],
                task_manager=manager,
                limit=self.limit or None,
                log_samples=True,
                bootstrap_iters=0,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"lm-eval cannot run {self.task_name}: {error_summary(error)}. "
                "Its data come from the hub, or from files that the task names"
            ) from error
        samples = [sample for name in sorted(results["samples"]) for sample in results["samples"][name]]
        metrics = sorted({metric for sample in samples for metric in sample.get("metrics", ())})
        if not all(self.metric in sample for sample in samples):
            raise DataError(
                f"task {self.task_name} has no metric {self.metric!r} for each question "
                f"(it has {', '.join(metrics) or 'none'})"
            )
        return np.array([float(sample[self.metric]) for sample in samples])

    def decode(self, arrays: Arrays, context: ObservationContext) -> np.ndarray:
        return arrays["values"]


def task_manager(task_name: str, folder: str) -> Any:
    """Return lm-eval's index of tasks that holds ``task_name``.

    lm-eval takes seconds to index its own thousands of tasks. A single task of the folder needs none of them,
    unlike a group.

    Raises:
        ConfigError: Neither the folder nor lm-eval has such a task.
    """
    from lm_eval.tasks import TaskManager

    if not folder:
        manager = lm_eval_tasks()
    else:
        manager = TaskManager(include_path=folder, include_defaults=False)
        if task_name in manager.all_subtasks:
            return manager
        if task_name in {*manager.all_tasks, *lm_eval_tasks().all_tasks}:
            return TaskManager(include_path=folder)
    if task_name not in manager.all_tasks:
        raise ConfigError(f"lm-eval has no task {task_name!r}: name the folder that holds it with folder=…")
    return manager


@functools.cache
def lm_eval_tasks() -> Any:
    """Return the index of lm-eval's own tasks."""
    from lm_eval.tasks import TaskManager

    return TaskManager()
