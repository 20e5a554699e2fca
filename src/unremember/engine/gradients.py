"""Forward and backward over the micro-batches of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unremember.engine import reference
from unremember.engine.job import Job
from unremember.engine.samplings import Batch
from unremember.engine.weights import Weights
from unremember.processes import parts_of_this_process, sum_over_processes, process_state


def accumulate_gradients(
    job: Job, weights: Weights, batch: Batch, roles: Sequence[str], states: dict[str, Any]
) -> tuple[dict[str, float], int]:
    """Add the gradients of some roles' weighted terms to the weights.

    Returns:
        Each term's loss by role and name, and the number of tokens used.
    """
    figures, tokens = accumulate_losses(job, weights, batch, roles, states, weights.accelerator.backward)
    terms = job.seams.terms
    return {f"{terms[i].role}/{loss_name(terms[i].loss)}": value for i, value in figures.items()}, tokens


def accumulate_losses(
    job: Job,
    weights: Weights,
    batch: Batch,
    roles: Sequence[str],
    states: dict[str, Any],
    each: Callable[[Any], None] | None = None,
) -> tuple[dict[int, float], int]:
    """Compute the losses of some roles' terms.

    A term is divided by the examples of the step, or by their answer tokens: never by the sum of weights.
    Each process takes its share of the micro-batches; the losses returned are those of all processes.

    Args:
        each: Called with the weighted objective of every micro-batch.

    Returns:
        The loss of each term by its index, and the number of tokens used.
    """
    terms = [(i, term) for i, term in enumerate(job.seams.terms) if term.role in roles]
    divisors = {i: divisor(job, i, batch[term.role].rows) for i, term in terms}
    totals: dict[int, Any] = dict.fromkeys((i for i, _ in terms), 0.0)
    for part, counts in parts_of_this_process(micro_batches(job, batch, roles, process_state().num_processes)):
        rows = {role: batch[role].rows[positions] for role, positions in part.items()}
        values = weights.forward(
            partial(term_losses, job, rows=rows, states=states, device=weights.accelerator.device)
        )
        objective: Any = 0.0
        for i, term in terms:
            if term.role not in part:
                continue
            row_weights = batch[term.role].weights[part[term.role]] * np.float32(counts)
            reduced = (torch.from_numpy(row_weights).to(values[i]) * values[i]).sum() / divisors[i]
            totals[i] += reduced.detach()
            objective = objective + term.weight * reduced
        if each:
            each(objective)
    tokens = sum(int(job.work[role][batch[role].rows].sum()) for role in roles)
    sums = sum_over_processes(torch.tensor([float(value) for value in totals.values()], dtype=torch.float64))
    return dict(zip(totals, sums.tolist())), tokens


def divisor(job: Job, term: int, rows: np.ndarray) -> int:
    """Return what a term's summed losses are divided by: the step's examples or their answer tokens."""
    return len(rows) if job.losses[term].per == "example" else max(1, int(job.counts[term][rows].sum()))


def term_losses(
    job: Job, model: Any, rows: Mapping[str, np.ndarray], states: dict[str, Any], device: torch.device
) -> dict[int, Tensor]:
    """Return Tensor[B] by term: the loss of each of its role's ``rows``. The losses' states move on."""
    references = reference.reference_views(job.cached, rows, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=job.settings.precision == "bf16"):
        views = job.task.forward(
            model,
            {role: (job.data[role], drawn) for role, drawn in rows.items()},
            {r: job.needs[r] for r in rows},
        )
    values = {}
    for i, term in enumerate(job.seams.terms):
        if term.role in rows:
            values[i], states[str(i)] = job.losses[i].apply(
                views[term.role], references[term.role], states[str(i)]
            )
    return values


def loss_name(loss: Any) -> str:
    """Return the name of a loss in the log."""
    return (
        loss
        if isinstance(loss, str)
        else loss["name"]
        if isinstance(loss, Mapping)
        else type(loss).__name__.lower()
    )


def micro_batches(
    job: Job, batch: Batch, roles: Sequence[str], processes: int = 1
) -> list[dict[str, np.ndarray] | None]:
    """Cut a step into equally large forwards of about ``micro_tokens`` tokens, similar lengths together.

    Roles that read the same depth share forwards; a role that reads only an inner layer gets its own, which
    stop there. Every process gets equally many forwards of each depth: None fills up.

    Returns:
        By forward and role, the positions in the role's draw.
    """
    by_depth: dict[tuple[int | None, ...], list[str]] = {}
    for role in roles:
        depth = tuple(sorted({need.layer for need in job.needs[role]}, key=str))
        by_depth.setdefault(depth, []).append(role)
    parts: list[dict[str, np.ndarray] | None] = []
    for together in by_depth.values():
        owner = np.concatenate([np.full(len(batch[role].rows), i) for i, role in enumerate(together)])
        positions = np.concatenate([np.arange(len(batch[role].rows)) for role in together])
        work = np.concatenate([job.work[role][batch[role].rows] for role in together])
        order = np.argsort(work, kind="stable")
        for chosen in np.split(order, equal_cuts(work[order], job.settings.micro_tokens, processes)):
            by_role = {role: positions[chosen[owner[chosen] == i]] for i, role in enumerate(together)}
            parts.append({role: drawn for role, drawn in by_role.items() if len(drawn)})
        parts += [None] * (-len(parts) % processes)
    return parts


def equal_cuts(work: np.ndarray, most: int, processes: int = 1) -> np.ndarray:
    """Return where rows of this much work are cut, into as few equal shares as keep each near ``most``.

    The number of shares is a multiple of ``processes``.
    """
    tokens = int(work.sum())
    size = math.ceil(tokens / (processes * math.ceil(tokens / (processes * most))))
    return np.flatnonzero(np.diff((np.cumsum(work) - work) // size)) + 1
