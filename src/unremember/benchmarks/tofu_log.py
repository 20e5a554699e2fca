"""Published evaluation logs of TOFU: forget quality and model utility without a model.

The logs are those of the benchmark's first evaluator, which averages over wrong answers in two ways: for the
truth ratio of the utility it averages probabilities, for the forget quality it averages losses.
``model_utility_geometric`` is the utility with averaged losses throughout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unremember.audits.forget_quality import ks
from unremember.audits.model_utility import harmonic
from unremember.benchmarks.reading import READ_ERRORS, read_text
from unremember.errors import DataError, did_you_mean

RETAIN_TASK, FORGET_TASK = "eval_log.json", "eval_log_forget.json"
OPTION_TASKS = ("eval_real_author_wo_options.json", "eval_real_world_wo_options.json")
"""The tasks whose wrong answers are options to choose from."""
LOG_TASKS = (RETAIN_TASK, FORGET_TASK, *OPTION_TASKS)
LOG_FIELDS = ("avg_gt_loss", "average_perturb_loss", "avg_paraphrased_loss", "rougeL_recall")
EvaluationLog = Mapping[str, Mapping[str, Any]]
"""Values of each example, by task and field."""


def scores_from_logs(log: Path, oracle_log: Path | None = None) -> dict[str, Any]:
    """Compute TOFU's scores from evaluation logs.

    Args:
        log: The log of the model that forgot: a file or a folder.
        oracle_log: The log of the retrained model.

    Returns:
        ``forget_quality`` (None without the oracle's log), ``model_utility``, its nine ``parts``, the number
        ``n`` of examples of each task, and ``notes`` on what a TOFU log cannot hold. A part that is not a
        number is None and makes the utility 0.

    Raises:
        DataError: A log cannot be read, or lacks a task or field.
    """
    evaluation = _read_log(log)
    parts = {mean: _utility_parts(evaluation, mean) for mean in ("arithmetic", "geometric")}
    utility = {mean: float(harmonic(np.array(list(part.values())))) for mean, part in parts.items()}
    scores: dict[str, Any] = {
        "forget_quality": None,
        "model_utility": utility["arithmetic"],
        "model_utility_geometric": utility["geometric"],
        "parts": {name: value if np.isfinite(value) else None for name, value in parts["arithmetic"].items()},
        "n": {
            task: len(_values(evaluation, task, "avg_gt_loss")) for task in LOG_TASKS if task in evaluation
        },
        "notes": _notes(evaluation),
    }
    if oracle_log is None:
        return {**scores, "reason": "forget quality needs --oracle-log, the retrained model's log"}
    unlearned, oracle = _log_truth_ratios(evaluation), _log_truth_ratios(_read_log(oracle_log))
    if len(unlearned) != len(oracle):
        scores["notes"].append(
            f"the logs hold {len(unlearned)} and {len(oracle)} forget examples: "
            "p depends on these numbers, so compare it only with a p of the same numbers"
        )
    if not (np.isfinite(unlearned).all() and np.isfinite(oracle).all()):
        return {**scores, "reason": "a truth ratio of the logs is not finite"}
    p, extra = ks(unlearned, oracle)
    return {**scores, "forget_quality": p, **extra}


def _read_log(path: Path) -> EvaluationLog:
    """Read one JSON object, or a folder with a file for each task, gzipped or not."""
    if not path.exists():
        raise DataError(f"no evaluation log {path}")
    if path.is_file():
        log = _read_json(path)
    else:
        files = [file for task in LOG_TASKS for file in (path / task, path / f"{task}.gz") if file.exists()]
        log = {file.name.removesuffix(".gz"): _read_json(file) for file in files}
    if not isinstance(log, dict) or not any(task in log for task in LOG_TASKS):
        raise DataError(
            f"{path} holds no TOFU log: it needs the tasks {', '.join(LOG_TASKS)}, "
            "in one object or a file each"
        )
    return log


def _read_json(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except READ_ERRORS as error:
        raise DataError(f"{file} is not JSON: {error}") from error


def _values(log: EvaluationLog, task: str, field: str) -> dict[str, Any]:
    """Return one field of a task by example, whether it was written as a list or as an object."""
    if task not in log:
        raise DataError(f"the log has no task {task!r}: {did_you_mean(task, log)}")
    if not isinstance(log[task], Mapping):
        raise DataError(f"task {task!r} is a {type(log[task]).__name__}, not an object of fields")
    if field not in log[task]:
        raise DataError(f"task {task!r} has no field {field!r}: {did_you_mean(field, log[task])}")
    values = log[task][field]
    if not isinstance(values, dict | list) or not values:
        raise DataError(f"task {task!r}: {field!r} holds no examples")
    return {str(k): v for k, v in (values.items() if isinstance(values, dict) else enumerate(values))}


def _aligned(log: EvaluationLog, task: str, *fields: str) -> list[np.ndarray]:
    """Return several fields over the examples that all of them have, in one order.

    ``average_perturb_loss`` is float64[n, wrong answers], every other field float64[n].
    """
    columns = [_values(log, task, field) for field in fields]
    common = [key for key in columns[0] if all(key in column for column in columns[1:])]
    if not common:
        raise DataError(f"task {task!r}: the fields {', '.join(fields)} share no example")
    return [_array([values[key] for key in common], task, field) for field, values in zip(fields, columns)]


def _array(values: list[Any], task: str, field: str) -> np.ndarray:
    """Return the values of a field as an array. Raises DataError where they are not as many numbers each."""
    is_list = field == "average_perturb_loss"
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.zeros(())
    if array.ndim != 1 + is_list or not array.size:
        form = "a list of as many numbers" if is_list else "one number"
        raise DataError(f"task {task!r}: {field!r} needs {form} for every example")
    return array


def _right_answer_field(log: EvaluationLog, task: str) -> str:
    """Return the field of the right answer: its paraphrase, or itself where a task with options has none."""
    has_paraphrase = "avg_paraphrased_loss" in log.get(task, {})
    return "avg_gt_loss" if task in OPTION_TASKS and not has_paraphrase else "avg_paraphrased_loss"


def _log_odds(log: EvaluationLog, task: str) -> np.ndarray:
    """Return float64[n, wrong answers]: log of each wrong answer's probability over the right one's."""
    right, wrong = _aligned(log, task, _right_answer_field(log, task), "average_perturb_loss")
    return right[:, None] - wrong


def _log_truth_ratios(log: EvaluationLog) -> np.ndarray:
    """Return float64[n]: the log of each forget example's truth ratio, from averaged losses."""
    return _log_odds(log, FORGET_TASK).mean(-1)


def _utility_parts(log: EvaluationLog, mean: str) -> dict[str, float]:
    """Return the nine parts of model utility; ``mean`` is how the truth ratio averages wrong answers."""
    parts = {}
    for task in (RETAIN_TASK, *OPTION_TASKS):
        with np.errstate(over="ignore", invalid="ignore"):
            odds = _log_odds(log, task)
            ratio = np.exp(odds).mean(-1) if mean == "arithmetic" else np.exp(odds.mean(-1))
            parts[f"{task} probability"] = float(_true_answer_probability(log, task).mean())
        parts[f"{task} rouge"] = float(_aligned(log, task, "rougeL_recall")[0].mean())
        parts[f"{task} truth_ratio"] = float(np.maximum(0, 1 - ratio).mean())
    return parts


def _true_answer_probability(log: EvaluationLog, task: str) -> np.ndarray:
    """Return float64[n]: the probability of the true answer, as a share of all options if there are any."""
    if task not in OPTION_TASKS:
        return np.exp(-_aligned(log, task, "avg_gt_loss")[0])
    true, wrong = _aligned(log, task, "avg_gt_loss", "average_perturb_loss")
    return 1 / (1 + np.exp(true[:, None] - wrong).sum(-1))


def _notes(log: EvaluationLog) -> list[str]:
    """Return a note on all that a TOFU log cannot hold and this one does. It still enters the scores."""
    notes = []
    for task in LOG_TASKS:
        if task not in log:
            continue
        columns = {field: _values(log, task, field) for field in LOG_FIELDS if field in log[task]}
        if len({frozenset(values) for values in columns.values()}) > 1:
            counts = ", ".join(f"{field} {len(values)}" for field, values in columns.items())
            notes.append(f"{task}: its fields do not hold the same examples ({counts})")
        for field in columns:
            notes += _value_notes(task, field, _aligned(log, task, field)[0])
    return notes


def _value_notes(task: str, field: str, values: np.ndarray) -> list[str]:
    notes = []
    is_recall = field == "rougeL_recall"
    impossible = int((values > 1 if is_recall else values < 0).sum())
    if impossible:
        what = "a recall above 1" if is_recall else "below 0, a probability above 1,"
        notes.append(f"{task}: {field} is {what} {impossible} times")
    not_finite = int((~np.isfinite(values)).sum())
    if not_finite:
        notes.append(f"{task}: {field} is not a finite number {not_finite} times")
    return notes
