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
from torch import Tensor

from unremember.data.samplings import Step
from unremember.data.split import Split
from unremember.engine import checkpoint, processes
from unremember.engine.job import Job, prepare
from unremember.engine.measure import Measure
from unremember.engine.processes import Weights, same
from unremember.engine.progress import Progress
from unremember.engine.seams import Recipe, Task
from unremember.engine.settings import Settings
from unremember.errors import Collapsed, DataError
from unremember.models.causal import PACKED, attending

Watch = Callable[[Any, int], bool | None]


def train(model: Any, task: Task, split: Split, recipe: Recipe, settings: Settings, folder: Path | None = None,
          watch: Watch | None = None, every: int = 0, quiet: bool = False) -> Any:  # fmt: skip
    """Run ``recipe`` on ``model`` (changed in place) and return it.

    With ``folder`` the run writes ``log.jsonl`` and checkpoints there and, called again, carries on where it
    stopped: the final weights equal an undisturbed run's bit for bit on CPU. ``watch(model, step)`` is called after
    ``every`` steps (0: after every epoch) and at the end; where it returns True the run ends there; a run that carries
    on looks first where it stopped. Raises
    :class:`Collapsed` when a loss or gradient is not finite (the last checkpoint stays).
    """
    torch.manual_seed(settings.seed)
    with tempfile.TemporaryDirectory() as scratch:
        accelerator, home = processes.start(model), folder or same(Path(scratch))
        job = prepare(model, task, split, recipe, settings, home)
        processes.agree(job.identity)
        torch.manual_seed(settings.seed)
        selected = job.selection.apply(job.context)
        try:
            loop(job, processes.hold(accelerator, model, selected), home, folder is not None, watch, every or job.per_epoch, quiet)
        finally:
            model.eval()
        return selected.finish(model)


def loop(job: Job, weights: Weights, home: Path, keep: bool, watch: Watch | None, every: int, quiet: bool) -> None:
    settings = job.settings
    if settings.gradient_checkpointing:
        twice = {"use_reentrant": False, "context_fn": lambda: (contextlib.nullcontext(), attending(weights.model, PACKED))}
        weights.model.gradient_checkpointing_enable(twice)
    optimizer = torch.optim.AdamW(weights.parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    optimizer = weights.accelerator.prepare_optimizer(optimizer)
    states = {
        "sampling": job.sampling.init(job.context), "blend": job.blend.init(job.context),
        "loss": {str(i): loss.init(job.context) for i, loss in enumerate(job.losses)}, "run": {"ended": False},
    }  # fmt: skip
    position = resume(home / "checkpoint", job, weights, optimizer, states) if keep else 0
    log = Log(home / "log.jsonl", position) if keep and processes.main() else None
    saved = time.monotonic()

    def look() -> None:
        if watch and (position % every == 0 or position == job.total):
            states["run"]["ended"] |= asked(watch, weights, position)

    if 0 < position < job.total and not states["run"]["ended"]:
        look()  # a run that was stopped as it looked here has not seen it
    with Progress("training", job.total, start=position, quiet=quiet) as progress:
        try:
            while position < job.total and not states["run"]["ended"]:
                with undivided():
                    refresh(job, weights, states, position)
                    if states["run"]["ended"]:
                        break
                    step, states["sampling"] = job.sampling.apply(job.context, states["sampling"])
                    training_mode(weights.model)
                    with flushed():
                        figures, tokens = update(job, weights, optimizer, step, states, position)
                    position += 1
                    if log:
                        log.add({"step": position, "epoch": position / job.per_epoch, **figures})
                    progress.advance(1, tokens, " ".join(f"{k} {v:.3g}" for k, v in figures.items()))
                look()
                if keep and processes.anywhere(time.monotonic() - saved > settings.checkpoint_seconds):
                    with undivided():
                        save(home / "checkpoint", job, weights, optimizer, states, position)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if keep:
                save(home / "checkpoint", job, weights, optimizer, states, position)
            raise
    if keep:
        save(home / "checkpoint", job, weights, optimizer, states, position)
    with weights.whole():
        processes.wait()


def asked(watch: Watch, weights: Weights, position: int) -> bool:
    """Whether the watcher ends the run. Several processes hold Ctrl-C back meanwhile: they can only stop together."""
    with undivided() if processes.world().num_processes > 1 else contextlib.nullcontext(), weights.whole() as model:
        return same(bool(watch(model, position)))


def refresh(job: Job, weights: Weights, states: dict[str, Any], position: int) -> None:
    """Let a sampling that reads the model do so, before the first step and at its interval; ``ended`` in its state ends the run."""
    often = job.sampling.refresh_every
    if often is not None and (position % often == 0 if often else position == 0):
        with weights.whole():
            states["sampling"] = same(job.sampling.refresh(job.context, states["sampling"]))
        states["run"]["ended"] |= bool(states["sampling"].get("ended"))


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Ctrl-C inside the block, on any process, is raised at its end on all: a step is done or not begun, and no finaliser that
    runs in it swallows the word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if processes.anywhere(bool(pending)):
        raise KeyboardInterrupt


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Within the block a CPU takes numbers below the least normal one (1e-38 in float32) for 0: they move no weight, and a model that
    gives an answer no chance is full of them, each a hundred times as slow as any other."""
    before = torch.tensor(1e-310, dtype=torch.float64).mul(1.0).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def training_mode(model: Any) -> None:
    """Training mode, but for normalisation layers that are frozen: their running statistics stay as well."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def update(job: Job, weights: Weights, optimizer: Any, step: Step, states: dict[str, Any], position: int) -> tuple[dict[str, float], int]:
    """One step: what the blend makes of the roles' gradients, through the optimiser or straight to the weights."""
    parameters, masks = weights.parameters, weights.masks
    measure = Measure(job, weights, optimizer, states, step, position)
    change, states["blend"] = job.blend.apply(measure, states["blend"])
    norm = finite(measure, change, position)
    before = [p.detach().clone() if job.blend.corrects or mask is not None else p for p, mask in zip(parameters, masks)]
    with torch.no_grad():
        if job.blend.raw:
            for p, delta in zip(parameters, change):
                p.add_(delta)
        else:
            for p, gradient, there in zip(parameters, change, measure.reached):
                p.grad = gradient if there else None
            if job.settings.clip:
                torch.nn.utils.clip_grads_with_norm_(parameters, job.settings.clip, norm)
            for group in optimizer.param_groups:
                group["lr"] = measure.lr
            optimizer.step()
        for p, old, mask in zip(parameters, before, masks):
            if mask is not None:
                p.copy_(torch.where(mask.bool(), p, old))
        if job.blend.corrects:
            deltas, states["blend"] = job.blend.correct([p - old for p, old in zip(parameters, before)], measure, states["blend"])
            for p, old, delta in zip(parameters, before, deltas):
                p.copy_(old + delta)
    return {**measure.figures, **measure.notes}, measure.tokens


def finite(measure: Measure, change: Sequence[Tensor], position: int) -> Tensor:
    """The norm of the change; raises Collapsed where it or a loss is not finite."""
    norm = measure.norm(change)
    figures = {**measure.figures, "norm of the change": float(norm)}
    if not all(math.isfinite(value) for value in figures.values()):
        bad = ", ".join(f"{name} = {value}" for name, value in figures.items())
        raise Collapsed(f"the loss is not finite at step {position + 1} ({bad}): lower lr or the forget weight; nothing was saved over")
    return norm


def buffers(model: Any) -> dict[str, Tensor]:
    """What the model remembers beside its weights: running statistics."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    return {name: tensor for name, tensor in model.state_dict().items() if name not in weights}


def save(folder: Path, job: Job, weights: Weights, optimizer: Any, states: dict[str, Any], position: int) -> None:
    """Write a checkpoint; it holds everything whole, however many processes the run has."""
    found = checkpoint.optimizer_tree(optimizer)
    moments = {i: {name: weights.full(int(i), value) for name, value in state.items()} for i, state in found.items()}
    blend = {name: weights.full_vector(value) if is_vector(job, name, value) else value for name, value in states["blend"].items()}
    tree = {"position": position, "identity": job.identity, "buffers": buffers(job.model),
            "weights": {name: weights.full(at, p) for at, (name, p) in enumerate(zip(weights.names, weights.parameters))},
            "states": {**states, "blend": blend}, "optimizer": moments, "rng": torch.get_rng_state()}  # fmt: skip
    if processes.main():
        checkpoint.save(folder, tree, position)


def is_vector(job: Job, name: str, value: Any) -> bool:
    """Whether an entry of the blend's state lies along the weights."""
    return name.startswith(job.blend.vectors) and isinstance(value, Tensor)


def resume(folder: Path, job: Job, weights: Weights, optimizer: Any, states: dict[str, Any]) -> int:
    """Load the newest checkpoint, if there is one; returns the step to go on from."""
    flat = checkpoint.latest(folder)
    if flat is None:
        return 0
    there = checkpoint.under(flat, "identity")
    other = [part for part, digest in job.identity.items() if there.get(part) != digest]
    if other:
        raise DataError(f"{folder} was written with another {', '.join(other)}: choose another run folder")
    with torch.no_grad():
        for at, (name, p) in enumerate(zip(weights.names, weights.parameters)):
            p.copy_(weights.own(at, flat[f"weights/{name}"]))
        for name, tensor in buffers(job.model).items():
            tensor.copy_(flat[f"buffers/{name}"])
    moments = checkpoint.under(flat, "optimizer")
    checkpoint.restore_optimizer(optimizer, {name: weights.own(int(name.partition("/")[0]), value) for name, value in moments.items()})
    for seam in ("sampling", "blend", "run"):
        states[seam] = checkpoint.under(flat, f"states/{seam}")
    states["blend"] = {name: weights.own_vector(value) if is_vector(job, name, value) else value for name, value in states["blend"].items()}
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
