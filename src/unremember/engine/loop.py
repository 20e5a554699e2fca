"""The one training loop: draw, forward, blend, step — for every gradient method and every modality."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from unremember.data.samplings import Draw, Step
from unremember.data.split import Split
from unremember.engine import checkpoint, reference
from unremember.engine.progress import Progress
from unremember.engine.seams import Context, Loss, Need, Recipe, Selected, Task
from unremember.engine.settings import Settings
from unremember.errors import Collapsed, DataError
from unremember.models.digest import weights_digest
from unremember.registry import blends, losses, samplings, selections

Rows = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Job:
    """A recipe resolved against a model and a split: everything the loop reads and nothing that changes."""

    model: Any
    task: Task
    recipe: Recipe
    settings: Settings
    context: Context
    losses: tuple[Loss, ...]
    blend: Any
    sampling: Any
    data: Mapping[str, Any]
    work: Mapping[str, np.ndarray]
    tokens: Mapping[str, np.ndarray]
    needs: Mapping[str, tuple[Need, ...]]
    cached: Mapping[str, Mapping[Need, reference.Cached]]
    per_epoch: int
    total: int


def train(model: Any, task: Task, split: Split, recipe: Recipe, settings: Settings, folder: Path | None = None,
          watch: Callable[[Any, int], None] | None = None, quiet: bool = False) -> Any:  # fmt: skip
    """Run ``recipe`` on ``model`` (changed in place) and return it.

    With ``folder`` the run writes ``log.jsonl`` and checkpoints there and, called again, carries on where it
    stopped: the final weights equal an undisturbed run's bit for bit on CPU. ``watch(model, epoch)`` is called
    after every epoch. Raises :class:`Collapsed` when the loss is not finite (the last checkpoint stays).
    """
    torch.manual_seed(settings.seed)
    with tempfile.TemporaryDirectory() as scratch:
        home = folder or Path(scratch)
        job = prepare(model, task, split, recipe, settings, home)
        torch.manual_seed(settings.seed)
        selected = selections.make(recipe.selection).apply(model)
        try:
            loop(job, selected, home, folder is not None, watch, quiet)
        finally:
            model.eval()
        return selected.finish(model)


def prepare(model: Any, task: Task, split: Split, recipe: Recipe, settings: Settings, home: Path) -> Job:
    """Resolve the names, encode each role once, and compute what is read of the frozen original."""
    made = tuple(losses.make(term.loss) for term in recipe.terms)
    blend, sampling = blends.make(recipe.blend), samplings.make(recipe.sampling)
    needs, of_original = gather_needs(recipe, made)
    keys = {role: split[role].keys for role in recipe.roles}
    context = Context(model, split, recipe.roles, keys, settings.batch_size, settings.seed)
    data = {role: task.encode(split, role, sorted({n.text for n in needs[role]})) for role in recipe.roles}
    sizes = {role: task.sizes(data[role], needs[role][0].text) for role in recipe.roles}
    per_epoch = sampling.steps_per_epoch(context)
    total = settings.max_steps or per_epoch * settings.epochs
    cached: dict[str, dict[Need, reference.Cached]] = {}
    if any(of_original.values()):
        drawn = rows_drawn(sampling, context, total)
        digest = weights_digest(model)
        for role, wanted in of_original.items():
            key = f"{digest}{split[role].digest}{task.digest()}"
            cached[role] = {
                need: reference.cache(model, task, data[role], role, need, drawn[role], home / "reference", key)
                for need in wanted
            }
    return Job(model, task, recipe, settings, context, made, blend, sampling, data,
               {r: s[0] for r, s in sizes.items()}, {r: s[1] for r, s in sizes.items()}, needs, cached, per_epoch, total)  # fmt: skip


def gather_needs(recipe: Recipe, made: Sequence[Loss]) -> tuple[dict[str, tuple[Need, ...]], dict[str, tuple[Need, ...]]]:
    """What each role's forward must give, and what is read of the original, over all terms."""
    now: dict[str, tuple[Need, ...]] = dict.fromkeys(recipe.roles, ())
    original = dict(now)
    for term, loss in zip(recipe.terms, made):
        now[term.role] = tuple(dict.fromkeys((*now[term.role], *loss.needs)))
        original[term.role] = tuple(dict.fromkeys((*original[term.role], *loss.reference_needs)))
    return now, original


def rows_drawn(sampling: Any, context: Context, total: int) -> dict[str, np.ndarray]:
    """The rows of each role that the run will ever draw."""
    state, drawn = sampling.init(context), {role: [] for role in context.roles}  # type: ignore[var-annotated]
    for _ in range(total):
        step, state = sampling.apply(context, state)
        for role, draw in step.items():
            drawn[role].append(draw.rows)
    return {role: np.unique(np.concatenate(rows)) for role, rows in drawn.items()}


def loop(job: Job, selected: Selected, home: Path, keep: bool, watch: Callable[[Any, int], None] | None, quiet: bool) -> None:
    settings, parameters = job.settings, list(selected.parameters.values())
    accelerator = Accelerator()
    if settings.gradient_checkpointing:
        job.model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    model, optimizer = accelerator.prepare(job.model, optimizer)
    states = {
        "sampling": job.sampling.init(job.context), "blend": job.blend.init(job.context),
        "loss": {str(i): loss.init(job.context) for i, loss in enumerate(job.losses)},
    }  # fmt: skip
    position = resume(home / "checkpoint", selected, optimizer, states) if keep else 0
    log = Log(home / "log.jsonl", position) if keep else None
    saved = time.monotonic()
    with Progress("training", job.total, start=position, quiet=quiet) as progress:
        try:
            while position < job.total:
                step, states["sampling"] = job.sampling.apply(job.context, states["sampling"])
                model.train()
                figures, tokens = update(job, accelerator, optimizer, parameters, step, states, position)
                position += 1
                if log:
                    log.add({"step": position, "epoch": position / job.per_epoch, **figures})
                progress.advance(1, tokens, " ".join(f"{k} {v:.3g}" for k, v in figures.items()))
                if watch and (position % job.per_epoch == 0 or position == job.total):
                    model.eval()
                    watch(job.model, math.ceil(position / job.per_epoch))
                if keep and time.monotonic() - saved > settings.checkpoint_seconds:
                    save(home / "checkpoint", selected, optimizer, states, position)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if keep:
                save(home / "checkpoint", selected, optimizer, states, position)
            raise
    if keep:
        save(home / "checkpoint", selected, optimizer, states, position)


def update(job: Job, accelerator: Accelerator, optimizer: Any, parameters: Sequence[Tensor], step: Step, states: dict[str, Any],
           position: int) -> tuple[dict[str, float], int]:  # fmt: skip
    """One optimiser step: the gradients of the roles, their blend, clipping, the step."""
    optimizer.zero_grad(set_to_none=True)
    if job.blend.fused:
        figures, tokens = backward(job, accelerator, step, job.recipe.roles, states)
    else:
        gradients, figures, tokens = {}, {}, 0
        for role in job.recipe.roles:
            some, used = backward(job, accelerator, step, (role,), states)
            gradients[role] = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            optimizer.zero_grad(set_to_none=True)
            figures, tokens = {**figures, **some}, tokens + used
        blended, states["blend"] = job.blend.apply(gradients, figures, states["blend"])
        for parameter, gradient in zip(parameters, blended):
            parameter.grad = gradient
    if not all(math.isfinite(value) for value in figures.values()):
        bad = ", ".join(f"{name} = {value}" for name, value in figures.items())
        raise Collapsed(f"the loss is not finite at step {position + 1} ({bad}): lower lr or the forget weight; nothing was saved over")
    if job.settings.clip:
        accelerator.clip_grad_norm_(parameters, job.settings.clip)
    for group in optimizer.param_groups:
        group["lr"] = job.settings.rate(position, job.total, job.per_epoch)
    optimizer.step()
    return figures, tokens


def backward(job: Job, accelerator: Accelerator, step: Step, roles: Sequence[str], states: dict[str, Any]) -> tuple[dict[str, float], int]:
    """Forward and backward over the micro-batches of some roles; returns each term's loss and the tokens used."""
    terms = [(i, term) for i, term in enumerate(job.recipe.terms) if term.role in roles]
    over = {i: denominator(job, i, term.role, step[term.role]) for i, term in terms}
    totals: dict[int, Any] = dict.fromkeys((i for i, _ in terms), 0.0)
    for part in micro_batches(job, step, roles):
        rows = {role: step[role].rows[at] for role, at in part.items()}
        old = reference.views(job.cached, rows, accelerator.device)
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=job.settings.precision == "bf16"):
            seen = job.task.forward(job.model, {r: (job.data[r], at) for r, at in rows.items()}, {r: job.needs[r] for r in rows})
        objective: Any = 0.0
        for i, term in terms:
            if term.role not in part:
                continue
            values, states["loss"][str(i)] = job.losses[i].apply(seen[term.role], old[term.role], states["loss"][str(i)])
            weights = torch.from_numpy(step[term.role].weights[part[term.role]]).to(values)
            reduced = (weights * values).sum() / over[i]
            totals[i] += reduced.detach()
            objective = objective + term.weight * reduced
        accelerator.backward(objective)
    used = sum(int(job.work[role][step[role].rows].sum()) for role in roles)
    return {f"{term.role}/{job_name(term)}": float(totals[i]) for i, term in terms}, used


def job_name(term: Any) -> str:
    """The loss's name in the log."""
    loss = term.loss
    return loss if isinstance(loss, str) else loss["name"] if isinstance(loss, Mapping) else type(loss).__name__.lower()


def denominator(job: Job, term: int, role: str, draw: Draw) -> float:
    """Examples of the step, or their answer tokens: never the sum of weights."""
    return float(len(draw.rows) if job.losses[term].per == "example" else job.tokens[role][draw.rows].sum())


def micro_batches(job: Job, step: Step, roles: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Cut a step into forwards of at most ``micro_batch`` rows of like length: ``{role: positions in the draw}``.

    Roles that read the same depth share forwards; a role that reads only an inner layer gets its own, which stop there.
    """
    by_depth: dict[tuple[int | None, ...], list[str]] = {}
    for role in roles:
        depth = tuple(sorted({n.layer for n in job.needs[role]}, key=str))
        by_depth.setdefault(depth, []).append(role)
    parts = []
    for together in by_depth.values():
        owner = np.concatenate([np.full(len(step[role].rows), i) for i, role in enumerate(together)])
        at = np.concatenate([np.arange(len(step[role].rows)) for role in together])
        order = np.argsort(np.concatenate([job.work[role][step[role].rows] for role in together]), kind="stable")
        for first in range(0, len(order), job.settings.micro_batch):
            chosen = order[first : first + job.settings.micro_batch]
            mine = {role: at[chosen[owner[chosen] == i]] for i, role in enumerate(together)}
            parts.append({role: where for role, where in mine.items() if len(where)})
    return parts


def save(folder: Path, selected: Selected, optimizer: Any, states: dict[str, Any], position: int) -> None:
    tree = {"position": position, "weights": dict(selected.parameters), "states": states,
            "optimizer": checkpoint.optimizer_tree(optimizer), "rng": torch.get_rng_state()}  # fmt: skip
    checkpoint.save(folder, tree, position)


def resume(folder: Path, selected: Selected, optimizer: Any, states: dict[str, Any]) -> int:
    """Load the newest checkpoint, if there is one; returns the step to go on from."""
    flat = checkpoint.latest(folder)
    if flat is None:
        return 0
    weights = checkpoint.under(flat, "weights")
    if set(weights) != set(selected.parameters):
        raise DataError(f"{folder} was written with another selection or model: choose another run folder")
    with torch.no_grad():
        for name, parameter in selected.parameters.items():
            parameter.copy_(weights[name])
    checkpoint.restore_optimizer(optimizer, checkpoint.under(flat, "optimizer"))
    for seam in ("sampling", "blend"):
        states[seam] = checkpoint.under(flat, f"states/{seam}")
    for i in states["loss"]:
        states["loss"][i] = checkpoint.under(flat, f"states/loss/{i}")
    torch.set_rng_state(flat["rng"])
    return int(flat["position"])


class Log:
    """``log.jsonl``: one line a step; a resumed run first drops the lines after its checkpoint."""

    def __init__(self, path: Path, position: int) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= position]
        checkpoint.write_text(path, "".join(f"{line}\n" for line in kept))

    def add(self, row: Mapping[str, Any]) -> None:
        with checkpoint.disk_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
