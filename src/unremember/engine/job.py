"""A gradient method resolved against a model and a split: what the loop reads, and nothing that changes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unremember.data.split import Split
from unremember.engine import reference
from unremember.engine.seams import Context, Loss, Phase, Seams
from unremember.engine.settings import Settings
from unremember.registry import blends, losses, samplings, selections
from unremember.tasks.protocol import Need, Task


@dataclasses.dataclass(frozen=True)
class Job:
    """One phase of a run, ready to be run.

    Args:
        seams: The method, every loss named.
        losses: The built loss of each term.
        data: By role: the encoded rows.
        work: By role, int64[n]: the tokens of each row.
        counts: By term, int64[n]: the answer tokens of each row that its loss reads.
        needs: By role: what its forward must give.
        cached: By role and need: what was read of the frozen models.
        per_epoch: Steps in an epoch.
        round_steps: Steps in a round of the phases (the whole run, where there is one phase).
        total: Steps in all.
        identity: By part, a digest: a checkpoint of another run is not carried on.
    """

    model: Any
    task: Task
    seams: Seams
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
    cached: Mapping[str, Mapping[Need, reference.CachedReference]]
    per_epoch: int
    round_steps: int
    total: int
    identity: Mapping[str, str]

    def rate(self, position: int) -> float:
        """Return the learning rate of step ``position`` (0-based).

        A recipe's schedule replaces that of the settings.
        """
        schedule, settings = self.seams.schedule, self.settings
        if schedule is None:
            return settings.rate(position, self.total, self.per_epoch)
        constant = dataclasses.replace(settings, schedule="constant")
        return constant.rate(position, self.total, self.per_epoch) * schedule.scale(position / self.per_epoch)


def prepare(
    model: Any, task: Task, split: Split, phase: Phase, settings: Settings, home: Path, rounds: int = 1
) -> Job:
    """Resolve a phase: build its parts, encode each role once, and compute what is read of frozen models.

    Args:
        model: The original, which the references are read of.
        home: The folder that holds ``reference/``.
        rounds: How often the phase is met.

    Raises:
        ConfigError: A part is unknown, or its loss needs what the task cannot give.
        DataError: A role or a column is missing.
    """
    seams = phase.recipe
    terms = tuple(
        dataclasses.replace(t, loss=task.training_loss if t.loss is None else t.loss) for t in seams.terms
    )
    seams = dataclasses.replace(seams, terms=terms)
    built = tuple(losses.make(term.loss) for term in terms)
    blend, sampling = blends.make(seams.blend), samplings.make(seams.sampling)
    selection = selections.make(seams.selection)
    needs, frozen_needs = gather_needs(seams, built)
    for role in seams.roles:
        task.check((*needs[role], *frozen_needs[role]))
    keys = {role: split[role].keys for role in seams.roles}
    context = Context(
        model, task, split, seams.roles, keys, settings.batch_size, settings.seed, seams.forgets
    )
    data = {role: task.encode(split, role, sorted({n.text for n in needs[role]})) for role in seams.roles}
    work = {role: task.sizes(data[role], needs[role][0].text)[0] for role in seams.roles}
    counts = tuple(
        loss_tokens(loss, task.sizes(data[term.role], loss.needs[0].text)[1])
        for term, loss in zip(terms, built)
    )
    per_epoch = sampling.steps_per_epoch(context)
    round_steps = phase.steps(settings.max_steps or per_epoch * settings.epochs, per_epoch)
    total = round_steps * rounds
    rows = {role: split[role].digest for role in seams.roles}
    drawn = rows_drawn(sampling, context, total * (1 + blend.draws)) if any(frozen_needs.values()) else {}
    cached, digests = reference.read_frozen(model, task, data, frozen_needs, drawn, rows, home / "reference")
    identity = {
        "model": " ".join(digests),
        "data": f"{sorted(rows.items())}{task.digest}",
        "losses": f"{[(term.role, loss, term.weight) for term, loss in zip(terms, built)]}",
        "blend": f"{blend}",
        "sampling": f"{sampling}",
        "selection": f"{selection}",
        "optimizer": f"{seams.optimizer} {seams.schedule}",
        "settings": f"{dataclasses.replace(settings, checkpoint_seconds=0)} {rounds} {phase.until}",
    }
    hashed = {part: hashlib.sha256(text.encode()).hexdigest() for part, text in identity.items()}
    return Job(
        model=model,
        task=task,
        seams=seams,
        settings=settings,
        context=context,
        losses=built,
        blend=blend,
        sampling=sampling,
        selection=selection,
        data=data,
        work=work,
        counts=counts,
        needs=needs,
        cached=cached,
        per_epoch=per_epoch,
        round_steps=round_steps,
        total=total,
        identity=hashed,
    )


def count_rounds(model: Any, task: Task, split: Split, phase: Phase, settings: Settings) -> int:
    """Return how many rounds the first of several phases needs for all steps of the settings."""
    seams, sampling = phase.recipe, samplings.make(phase.recipe.sampling)
    keys = {role: split[role].keys for role in seams.roles}
    context = Context(
        model, task, split, seams.roles, keys, settings.batch_size, settings.seed, seams.forgets
    )
    per_epoch = sampling.steps_per_epoch(context)
    run_steps = settings.max_steps or per_epoch * settings.epochs
    return -(-run_steps // phase.steps(run_steps, per_epoch))


def loss_tokens(loss: Loss, counts: np.ndarray) -> np.ndarray:
    """Return int64[n], how many of each answer's tokens a loss reads: all, where it does not say."""
    return loss.tokens(counts) if hasattr(loss, "tokens") else counts


def gather_needs(
    seams: Seams, built: Sequence[Loss]
) -> tuple[dict[str, tuple[Need, ...]], dict[str, tuple[Need, ...]]]:
    """Return, by role and over all terms, what a forward must give and what is read of frozen models."""
    current: dict[str, tuple[Need, ...]] = dict.fromkeys(seams.roles, ())
    frozen = dict(current)
    for term, loss in zip(seams.terms, built):
        current[term.role] = tuple(dict.fromkeys((*current[term.role], *loss.needs)))
        frozen[term.role] = tuple(dict.fromkeys((*frozen[term.role], *loss.reference_needs)))
    return current, frozen


def rows_drawn(sampling: Any, context: Context, total: int) -> dict[str, np.ndarray]:
    """Return the rows of each role that ``total`` batches draw; all rows, where that depends on the model."""
    if sampling.refresh_every is not None:
        return {role: np.arange(len(keys)) for role, keys in context.keys.items()}
    state = sampling.init(context)
    drawn: dict[str, list[np.ndarray]] = {role: [] for role in context.roles}
    for _ in range(total):
        batch, state = sampling.apply(context, state)
        for role, draw in batch.items():
            drawn[role].append(draw.rows)
    return {role: np.unique(np.concatenate(rows)) for role, rows in drawn.items()}
