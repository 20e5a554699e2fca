"""Forward and backward over the micro-batches of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unremember.data.samplings import Step
from unremember.engine import reference
from unremember.engine.job import Job
from unremember.engine.processes import Weights, share, total, world


def backward(job: Job, weights: Weights, step: Step, roles: Sequence[str], states: dict[str, Any]) -> tuple[dict[str, float], int]:
    """Add the gradients of some roles' weighted terms to the weights; returns each term's loss by name, and the tokens used."""
    figures, tokens = forward(job, weights, step, roles, states, weights.accelerator.backward)
    return {f"{job.recipe.terms[i].role}/{loss_name(job.recipe.terms[i].loss)}": value for i, value in figures.items()}, tokens


def forward(job: Job, weights: Weights, step: Step, roles: Sequence[str], states: dict[str, Any],
            each: Callable[[Any], None] | None = None) -> tuple[dict[int, float], int]:  # fmt: skip
    """The losses of some roles' terms, and the tokens used; ``each`` gets the weighted objective of every micro-batch.

    A term is divided by the examples of the step, or by their answer tokens: never by the sum of weights. Each process
    takes its share of the micro-batches; the losses are those of all.
    """
    terms = [(i, term) for i, term in enumerate(job.recipe.terms) if term.role in roles]
    over = {i: len(step[t.role].rows) if job.losses[i].per == "example" else max(1, int(job.counts[i][step[t.role].rows].sum()))
            for i, t in terms}  # fmt: skip
    totals: dict[int, Any] = dict.fromkeys((i for i, _ in terms), 0.0)
    for part, counts in share(micro_batches(job, step, roles, world().num_processes)):
        rows = {role: step[role].rows[at] for role, at in part.items()}
        values = weights.forward(partial(examples, job, rows=rows, states=states, device=weights.accelerator.device))
        objective: Any = 0.0
        for i, term in terms:
            if term.role not in part:
                continue
            drawn = torch.from_numpy(step[term.role].weights[part[term.role]] * np.float32(counts)).to(values[i])
            reduced = (drawn * values[i]).sum() / over[i]
            totals[i] += reduced.detach()
            objective = objective + term.weight * reduced
        if each:
            each(objective)
    used = sum(int(job.work[role][step[role].rows].sum()) for role in roles)
    sums = total(torch.tensor([float(of) for of in totals.values()], dtype=torch.float64))
    return dict(zip(totals, sums.tolist())), used


def examples(job: Job, model: Any, rows: Mapping[str, np.ndarray], states: dict[str, Any], device: torch.device) -> dict[int, Tensor]:
    """Tensor[B] a term: the loss of each of its role's ``rows``; the losses' states move on."""
    old = reference.views(job.cached, rows, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=job.settings.precision == "bf16"):
        seen = job.task.forward(model, {r: (job.data[r], at) for r, at in rows.items()}, {r: job.needs[r] for r in rows})
    values = {}
    for i, term in enumerate(job.recipe.terms):
        if term.role in rows:
            values[i], states[str(i)] = job.losses[i].apply(seen[term.role], old[term.role], states[str(i)])
    return values


def loss_name(loss: Any) -> str:
    """The loss's name in the log."""
    return loss if isinstance(loss, str) else loss["name"] if isinstance(loss, Mapping) else type(loss).__name__.lower()


def micro_batches(job: Job, step: Step, roles: Sequence[str], processes: int = 1) -> list[dict[str, np.ndarray] | None]:
    """Cut a step into forwards of equal shares of its tokens, about ``micro_tokens`` each and like lengths together:
    ``{role: positions in the draw}``.

    Roles that read the same depth share forwards; a role that reads only an inner layer gets its own, which stop there.
    Those of a depth are as many for each process: None fills up.
    """
    by_depth: dict[tuple[int | None, ...], list[str]] = {}
    for role in roles:
        depth = tuple(sorted({n.layer for n in job.needs[role]}, key=str))
        by_depth.setdefault(depth, []).append(role)
    parts: list[dict[str, np.ndarray] | None] = []
    for together in by_depth.values():
        owner = np.concatenate([np.full(len(step[role].rows), i) for i, role in enumerate(together)])
        at = np.concatenate([np.arange(len(step[role].rows)) for role in together])
        work = np.concatenate([job.work[role][step[role].rows] for role in together])
        order = np.argsort(work, kind="stable")
        for chosen in np.split(order, cuts(work[order], job.settings.micro_tokens, processes)):
            mine = {role: at[chosen[owner[chosen] == i]] for i, role in enumerate(together)}
            parts.append({role: where for role, where in mine.items() if len(where)})
        parts += [None] * (-len(parts) % processes)
    return parts


def cuts(work: np.ndarray, most: int, processes: int = 1) -> np.ndarray:
    """Where rows of this much work are cut into as few equal shares as keep each at ``most``, give or take a row, and as
    each of the processes can have equally many of."""
    tokens = int(work.sum())
    size = math.ceil(tokens / (processes * math.ceil(tokens / (processes * most))))
    return np.flatnonzero(np.diff((np.cumsum(work) - work) // size)) + 1
