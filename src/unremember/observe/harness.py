"""Tasks of lm-eval, run on a model that is loaded already."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from unremember.errors import ConfigError, DataError
from unremember.models.load import first_line

INSTALL = "lm-eval is not installed: pip install 'unremember[eval]'"


def harness(
    model: Any, tokenizer: Any, task: str, metric: str, folder: str = "", limit: int = 0
) -> np.ndarray:
    """float64[n]: a metric of each question of an lm-eval task, or of all tasks of a group in lm-eval's order.

    ``folder`` holds task files of one's own; ``limit`` takes the first questions of each task (0: all). Raises
    ConfigError where lm-eval is not installed or does not know the task, DataError where it cannot run it (its data are not
    there) or the task has no such metric.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError(INSTALL) from error
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"no folder of tasks {folder}")
    tasks = TaskManager(include_path=folder or None)
    if task not in tasks.all_tasks:
        raise ConfigError(f"lm-eval has no task {task!r}; a task of your own lies in a folder that you name")
    model.eval()
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=32)
    try:
        found = simple_evaluate(
            wrapped,
            tasks=[task],
            task_manager=tasks,
            limit=limit or None,
            log_samples=True,
            bootstrap_iters=0,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"lm-eval cannot run {task}: {first_line(error)}. Its data come from the hub, or from files that it names"
        ) from error
    samples = [sample for name in sorted(found["samples"]) for sample in found["samples"][name]]
    known = sorted({key for sample in samples for key in sample.get("metrics", ())})
    if not all(metric in sample for sample in samples):
        raise DataError(
            f"task {task} has no metric {metric!r} for each question (there are {', '.join(known) or 'none'})"
        )
    return np.array([float(sample[metric]) for sample in samples])


def harness_digest(folder: str = "", limit: int = 0) -> str:
    """What decides a result beside model and task: lm-eval's version, the files of ``folder``, the limit."""
    try:
        version = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(INSTALL) from error
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file()) if folder else []
    parts = [
        f"{version} {limit}".encode(),
        *(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files),
    ]
    return hashlib.sha256(b"\x00".join(parts)).hexdigest()
