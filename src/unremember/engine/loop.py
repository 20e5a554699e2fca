"""The one training loop: draw, forward, blend, step — for every gradient method and every modality."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from unremember.data.samplings import Step
from unremember.data.split import Split
from unremember.engine import checkpoint
from unremember.engine.gradients import backward
from unremember.engine.job import Job, prepare
from unremember.engine.progress import Progress
from unremember.engine.seams import Recipe, Selected, Task
from unremember.engine.settings import Settings
from unremember.errors import Collapsed, DataError

Watch = Callable[[Any, int], None]


def train(model: Any, task: Task, split: Split, recipe: Recipe, settings: Settings, folder: Path | None = None,
          watch: Watch | None = None, quiet: bool = False) -> Any:  # fmt: skip
    """Run ``recipe`` on ``model`` (changed in place) and return it.

    With ``folder`` the run writes ``log.jsonl`` and checkpoints there and, called again, carries on where it
    stopped: the final weights equal an undisturbed run's bit for bit on CPU. ``watch(model, epoch)`` is called
    after every epoch. Raises :class:`Collapsed` when a loss or gradient is not finite (the last checkpoint stays).
    """
    torch.manual_seed(settings.seed)
    with tempfile.TemporaryDirectory() as scratch:
        home = folder or Path(scratch)
        job = prepare(model, task, split, recipe, settings, home)
        torch.manual_seed(settings.seed)
        selected = job.selection.apply(model)
        try:
            loop(job, selected, home, folder is not None, watch, quiet)
        finally:
            model.eval()
        return selected.finish(model)


def loop(job: Job, selected: Selected, home: Path, keep: bool, watch: Watch | None, quiet: bool) -> None:
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
    position = resume(home / "checkpoint", job, selected, optimizer, states) if keep else 0
    log = Log(home / "log.jsonl", position) if keep else None
    saved = time.monotonic()
    with Progress("training", job.total, start=position, quiet=quiet) as progress:
        try:
            while position < job.total:
                with undivided():
                    step, states["sampling"] = job.sampling.apply(job.context, states["sampling"])
                    training_mode(model)
                    figures, tokens = update(job, accelerator, optimizer, parameters, step, states, position)
                    position += 1
                    if log:
                        log.add({"step": position, "epoch": position / job.per_epoch, **figures})
                progress.advance(1, tokens, " ".join(f"{k} {v:.3g}" for k, v in figures.items()))
                if watch and (position % job.per_epoch == 0 or position == job.total):
                    model.eval()
                    watch(job.model, math.ceil(position / job.per_epoch))
                if keep and time.monotonic() - saved > settings.checkpoint_seconds:
                    save(home / "checkpoint", job, selected, optimizer, states, position)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if keep:
                save(home / "checkpoint", job, selected, optimizer, states, position)
            raise
    if keep:
        save(home / "checkpoint", job, selected, optimizer, states, position)


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Ctrl-C inside the block is raised at its end, so that a step is done or not begun."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        raise KeyboardInterrupt


def training_mode(model: Any) -> None:
    """Training mode, but for normalisation layers that are frozen: their running statistics stay as well."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def update(job: Job, accelerator: Accelerator, optimizer: Any, parameters: Sequence[Tensor], step: Step, states: dict[str, Any],
           position: int) -> tuple[dict[str, float], int]:  # fmt: skip
    """One optimiser step: the gradients of the roles, their blend, clipping, the step."""
    optimizer.zero_grad(set_to_none=True)
    if job.blend.fused:
        figures, tokens = backward(job, accelerator, step, job.recipe.roles, states)
    else:
        figures, tokens = blended(job, accelerator, optimizer, parameters, step, states)
    norm = accelerator.clip_grad_norm_(parameters, job.settings.clip or math.inf)
    if not all(math.isfinite(value) for value in (*figures.values(), float(norm))):
        bad = ", ".join(f"{name} = {value}" for name, value in (*figures.items(), ("gradient norm", float(norm))))
        raise Collapsed(f"the loss is not finite at step {position + 1} ({bad}): lower lr or the forget weight; nothing was saved over")
    for group in optimizer.param_groups:
        group["lr"] = job.settings.rate(position, job.total, job.per_epoch)
    optimizer.step()
    return figures, tokens


def blended(job: Job, accelerator: Accelerator, optimizer: Any, parameters: Sequence[Tensor], step: Step,
            states: dict[str, Any]) -> tuple[dict[str, float], int]:  # fmt: skip
    """Leave the blend of the roles' gradients on the weights; a weight that no role reached keeps none."""
    gradients: dict[str, list[Tensor]] = {}
    figures: dict[str, float] = {}
    tokens, reached = 0, [False] * len(parameters)
    for role in job.recipe.roles:
        some, used = backward(job, accelerator, step, (role,), states)
        reached = [was or p.grad is not None for was, p in zip(reached, parameters)]
        gradients[role] = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        optimizer.zero_grad(set_to_none=True)
        figures, tokens = {**figures, **some}, tokens + used
    update, states["blend"] = job.blend.apply(gradients, figures, states["blend"])
    for parameter, gradient, there in zip(parameters, update, reached):
        parameter.grad = gradient if there else None
    return figures, tokens


def buffers(model: Any) -> dict[str, Tensor]:
    """What the model remembers beside its weights: running statistics."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    return {name: tensor for name, tensor in model.state_dict().items() if name not in weights}


def save(folder: Path, job: Job, selected: Selected, optimizer: Any, states: dict[str, Any], position: int) -> None:
    tree = {"position": position, "identity": job.identity, "weights": dict(selected.parameters), "buffers": buffers(job.model),
            "states": states, "optimizer": checkpoint.optimizer_tree(optimizer), "rng": torch.get_rng_state()}  # fmt: skip
    checkpoint.save(folder, tree, position)


def resume(folder: Path, job: Job, selected: Selected, optimizer: Any, states: dict[str, Any]) -> int:
    """Load the newest checkpoint, if there is one; returns the step to go on from."""
    flat = checkpoint.latest(folder)
    if flat is None:
        return 0
    there = checkpoint.under(flat, "identity")
    other = [part for part, digest in job.identity.items() if there.get(part) != digest]
    if other:
        raise DataError(f"{folder} was written with another {', '.join(other)}: choose another run folder")
    held: dict[str, Tensor] = {f"weights/{name}": tensor for name, tensor in selected.parameters.items()}
    held |= {f"buffers/{name}": tensor for name, tensor in buffers(job.model).items()}
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(flat[name])
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
