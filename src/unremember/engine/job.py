"""A recipe resolved against a model and a split: what the loop reads and nothing that changes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unremember.data.split import Split
from unremember.engine import reference
from unremember.engine.seams import Context, Loss, Need, Recipe, Task
from unremember.engine.settings import Settings
from unremember.registry import blends, losses, samplings, selections


@dataclasses.dataclass(frozen=True)
class Job:
    """``data``, ``work`` (tokens of each row) and ``needs`` are by role; ``counts`` (answer tokens of each row) by term.

    ``identity`` says, part by part, which run this is: a checkpoint of another one is not carried on.
    """

    model: Any
    task: Task
    recipe: Recipe
    settings: Settings
    context: Context
    losses: tuple[Loss, ...]
    blend: Any
    sampling: Any
    selection: Any
    data: Mapping[str, Any]
    work: Mapping[str, np.ndarray]
    counts: tuple[np.ndarray, ...]
    needs: Mapping[str, tuple[Need, ...]]
    cached: Mapping[str, Mapping[Need, reference.Cached]]
    per_epoch: int
    total: int
    identity: Mapping[str, str]


def prepare(model: Any, task: Task, split: Split, recipe: Recipe, settings: Settings, home: Path) -> Job:
    """Resolve the names, encode each role once, and compute what is read of the frozen original (or of another frozen model)."""
    made = tuple(losses.make(term.loss) for term in recipe.terms)
    blend, sampling, selection = blends.make(recipe.blend), samplings.make(recipe.sampling), selections.make(recipe.selection)
    needs, of_frozen = gather_needs(recipe, made)
    keys = {role: split[role].keys for role in recipe.roles}
    context = Context(model, task, split, recipe.roles, keys, settings.batch_size, settings.seed)
    data = {role: task.encode(split, role, sorted({n.text for n in needs[role]})) for role in recipe.roles}
    work = {role: task.sizes(data[role], needs[role][0].text)[0] for role in recipe.roles}
    counts = tuple(tokens_of(loss, task.sizes(data[term.role], loss.needs[0].text)[1]) for term, loss in zip(recipe.terms, made))
    per_epoch = sampling.steps_per_epoch(context)
    total = settings.max_steps or per_epoch * settings.epochs
    rows = {role: split[role].digest for role in recipe.roles}
    drawn = rows_drawn(sampling, context, total * (1 + blend.draws)) if any(of_frozen.values()) else {}
    cached, digests = reference.read_frozen(model, task, data, of_frozen, drawn, rows, home / "reference")
    identity = {
        "model": " ".join(digests), "data": f"{sorted(rows.items())}{task.digest()}",
        "losses": f"{[(term.role, loss, term.weight) for term, loss in zip(recipe.terms, made)]}",
        "blend": f"{blend}", "sampling": f"{sampling}", "selection": f"{selection}",
        "settings": f"{dataclasses.replace(settings, checkpoint_seconds=0)}",
    }  # fmt: skip
    return Job(model, task, recipe, settings, context, made, blend, sampling, selection, data, work, counts, needs, cached,
               per_epoch, total, {part: hashlib.sha256(text.encode()).hexdigest() for part, text in identity.items()})  # fmt: skip


def tokens_of(loss: Loss, counts: np.ndarray) -> np.ndarray:
    """How many of each answer's tokens the loss reads: all, where it does not say."""
    return loss.tokens(counts) if hasattr(loss, "tokens") else counts


def gather_needs(recipe: Recipe, made: Sequence[Loss]) -> tuple[dict[str, tuple[Need, ...]], dict[str, tuple[Need, ...]]]:
    """What each role's forward must give, and what is read of frozen models, over all terms."""
    now: dict[str, tuple[Need, ...]] = dict.fromkeys(recipe.roles, ())
    frozen = dict(now)
    for term, loss in zip(recipe.terms, made):
        now[term.role] = tuple(dict.fromkeys((*now[term.role], *loss.needs)))
        frozen[term.role] = tuple(dict.fromkeys((*frozen[term.role], *loss.reference_needs)))
    return now, frozen


def rows_drawn(sampling: Any, context: Context, total: int) -> dict[str, np.ndarray]:
    """The rows of each role that the run will ever draw; all, where that depends on the model."""
    if sampling.refresh_every is not None:
        return {role: np.arange(len(keys)) for role, keys in context.keys.items()}
    state, drawn = sampling.init(context), {role: [] for role in context.roles}  # type: ignore[var-annotated]
    for _ in range(total):
        step, state = sampling.apply(context, state)
        for role, draw in step.items():
            drawn[role].append(draw.rows)
    return {role: np.unique(np.concatenate(rows)) for role, rows in drawn.items()}
