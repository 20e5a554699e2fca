"""Published TOFU evaluation logs: forget quality and model utility without a model.

The logs are those of the benchmark's first evaluator, whose two averages over wrong answers are kept apart: the
utility's truth ratio averages probabilities, the forget quality averages losses. ``model_utility_geometric`` is
the utility with the average of losses throughout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unremember.audits.forget_quality import ks
from unremember.audits.model_utility import harmonic
from unremember.benchmarks.reading import UNREADABLE, text_of
from unremember.errors import DataError, nearest

RETAIN, FORGET = "eval_log.json", "eval_log_forget.json"
OPTIONS = ("eval_real_author_wo_options.json", "eval_real_world_wo_options.json")
TASKS = (RETAIN, FORGET, *OPTIONS)
FIELDS = ("avg_gt_loss", "average_perturb_loss", "avg_paraphrased_loss", "rougeL_recall")
Log = Mapping[str, Mapping[str, Any]]


def from_logs(log: Path, oracle_log: Path | None = None) -> dict[str, Any]:
    """``forget_quality`` (None without the oracle's log), ``model_utility``, its nine parts, and ``notes``.

    A part that is not a number is None and makes the utility 0. Raises DataError naming a task or field that is
    not there.
    """
    found = read_log(log)
    parts = {mean: utility_parts(found, mean) for mean in ("arithmetic", "geometric")}
    utility = {mean: float(harmonic(np.array(list(part.values())))) for mean, part in parts.items()}
    out: dict[str, Any] = {
        "forget_quality": None,
        "model_utility": utility["arithmetic"],
        "model_utility_geometric": utility["geometric"],
        "parts": {name: value if np.isfinite(value) else None for name, value in parts["arithmetic"].items()},
        "n": {task: len(column(found, task, "avg_gt_loss")) for task in TASKS if task in found},
        "notes": oddities(found),
    }
    if oracle_log is None:
        return {**out, "reason": "forget quality needs --oracle-log, the retrained model's log"}
    mine, reference = log_ratios(found), log_ratios(read_log(oracle_log))
    if len(mine) != len(reference):
        out["notes"].append(
            f"the logs hold {len(mine)} and {len(reference)} forget examples: p depends on the number, compare it with no other"
        )
    if not (np.isfinite(mine).all() and np.isfinite(reference).all()):
        return {**out, "reason": "a truth ratio of the logs is not finite"}
    p, more = ks(mine, reference)
    return {**out, "forget_quality": p, **more}


def read_log(path: Path) -> Log:
    """Task → field → per-example values, from one JSON object or a folder of a file a task (gzip or not)."""
    if not path.exists():
        raise DataError(f"no evaluation log {path}")
    if path.is_file():
        found = load(path)
    else:
        files = [file for task in TASKS for file in (path / task, path / f"{task}.gz") if file.exists()]
        found = {file.name.removesuffix(".gz"): load(file) for file in files}
    if not isinstance(found, dict) or not any(task in found for task in TASKS):
        raise DataError(
            f"{path} holds no TOFU log: it needs the tasks {', '.join(TASKS)}, in one object or a file each"
        )
    return found


def load(file: Path) -> Any:
    try:
        return json.loads(text_of(file))
    except UNREADABLE as error:
        raise DataError(f"{file} is not JSON: {error}") from error


def column(log: Log, task: str, field: str) -> dict[str, Any]:
    """One field of a task by example, whether it was written as a list or as an object."""
    if task not in log:
        raise DataError(f"the log has no task {task!r}: {nearest(task, log)}")
    if not isinstance(log[task], Mapping):
        raise DataError(f"task {task!r} is a {type(log[task]).__name__}, not an object of fields")
    if field not in log[task]:
        raise DataError(f"task {task!r} has no field {field!r}: {nearest(field, log[task])}")
    values = log[task][field]
    if not isinstance(values, dict | list) or not values:
        raise DataError(f"task {task!r}: {field!r} holds no examples")
    return {str(k): v for k, v in (values.items() if isinstance(values, dict) else enumerate(values))}


def aligned(log: Log, task: str, *fields: str) -> list[np.ndarray]:
    """float64 arrays of several fields over the examples that all of them have, in one order.

    ``average_perturb_loss`` is [n, wrong answers], every other field [n].
    """
    columns = [column(log, task, field) for field in fields]
    common = [key for key in columns[0] if all(key in other for other in columns[1:])]
    if not common:
        raise DataError(f"task {task!r}: the fields {', '.join(fields)} share no example")
    return [numbers([values[key] for key in common], task, field) for field, values in zip(fields, columns)]


def numbers(values: list[Any], task: str, field: str) -> np.ndarray:
    wrong = field == "average_perturb_loss"
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.zeros(())
    if found.ndim != 1 + wrong or not found.size:
        raise DataError(
            f"task {task!r}: {field!r} needs {'a list of as many numbers' if wrong else 'one number'} for every example"
        )
    return found


def right(log: Log, task: str) -> str:
    """The field of the right answer: its paraphrase; where a task has options, the answer itself will do."""
    there = "avg_paraphrased_loss" in log.get(task, {})
    return "avg_gt_loss" if task in OPTIONS and not there else "avg_paraphrased_loss"


def gaps(log: Log, task: str) -> np.ndarray:
    """float64[n, wrong answers]: log of the probability of each wrong answer over that of the right one."""
    true, wrong = aligned(log, task, right(log, task), "average_perturb_loss")
    return true[:, None] - wrong


def log_ratios(log: Log) -> np.ndarray:
    """float64[n]: log of each forget example's truth ratio, the wrong answers' losses averaged."""
    return gaps(log, FORGET).mean(-1)


def utility_parts(log: Log, mean: str) -> dict[str, float]:
    """The nine parts of model utility."""
    parts = {}
    for task in (RETAIN, *OPTIONS):
        with np.errstate(over="ignore", invalid="ignore"):
            ratio = (
                np.exp(gaps(log, task)).mean(-1) if mean == "arithmetic" else np.exp(gaps(log, task).mean(-1))
            )
            parts[f"{task} probability"] = float(probability(log, task).mean())
        parts[f"{task} rouge"] = float(aligned(log, task, "rougeL_recall")[0].mean())
        parts[f"{task} truth_ratio"] = float(np.maximum(0, 1 - ratio).mean())
    return parts


def probability(log: Log, task: str) -> np.ndarray:
    """float64[n]: probability of the true answer, as a share of all options where the task has options."""
    if task not in OPTIONS:
        return np.exp(-aligned(log, task, "avg_gt_loss")[0])
    true, wrong = aligned(log, task, "avg_gt_loss", "average_perturb_loss")
    return 1 / (1 + np.exp(true[:, None] - wrong).sum(-1))


def oddities(log: Log) -> list[str]:
    """What a TOFU log cannot hold and this one does: it is computed with all the same, and said."""
    found = []
    for task in (task for task in TASKS if task in log):
        there = {field: column(log, task, field) for field in FIELDS if field in log[task]}
        if len({frozenset(values) for values in there.values()}) > 1:
            found.append(
                f"{task}: its fields do not hold the same examples ({', '.join(f'{f} {len(v)}' for f, v in there.items())})"
            )
        for field in there:
            values = aligned(log, task, field)[0]
            high = values > 1 if field == "rougeL_recall" else values < 0
            if high.any():
                found.append(
                    f"{task}: {field} is {'a recall above 1' if field == 'rougeL_recall' else 'below 0, a probability above 1,'} "
                    f"{int(high.sum())} times"
                )
            if not np.isfinite(values).all():
                found.append(
                    f"{task}: {field} is not a finite number {int((~np.isfinite(values)).sum())} times"
                )
    return found
