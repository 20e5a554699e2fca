"""A phase at work: its weights, optimiser and states; one step of it; its part of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unremember.engine import checkpoint
from unremember.engine.job import Job
from unremember.engine.seams import Selected
from unremember.engine.step import StepContext
from unremember.engine.weights import Weights
from unremember.errors import Collapsed, DataError
from unremember.processes import value_of_main_process


class Stage:
    """One phase as it runs. ``position`` counts its own steps; ``states`` are those of its parts."""

    def __init__(self, job: Job, weights: Weights, selected: Selected) -> None:
        self.job, self.weights, self.selected = job, weights, selected
        settings = job.settings
        optimizer = job.seams.optimizer.build(weights.parameters, settings.lr, settings.weight_decay)
        self.optimizer: Any = weights.accelerator.prepare_optimizer(optimizer)
        self.position = 0
        self.states: dict[str, Any] = {
            "sampling": job.sampling.init(job.context),
            "blend": job.blend.init(job.context),
            "loss": {str(i): loss.init(job.context) for i, loss in enumerate(job.losses)},
            "run": {"ended": False},
        }

    @property
    def ended(self) -> bool:
        """Whether the phase is over for good: its steps are taken, or a part of it ended it."""
        return bool(self.states["run"]["ended"]) or self.position >= self.job.total

    def freeze_others(self) -> None:
        """Let only the weights of this phase require gradients."""
        chosen = {id(p) for p in self.weights.parameters}
        for p in self.weights.model.parameters():
            p.requires_grad_(id(p) in chosen)

    def refresh(self) -> None:
        """Let parts that read the model do so, before the first step and at their intervals.

        A sampling may end the phase.
        """
        if due(self.job.sampling, self.position):
            with self.weights.whole_model():
                self.states["sampling"] = value_of_main_process(
                    self.job.sampling.refresh(self.job.context, self.states["sampling"])
                )
            self.states["run"]["ended"] |= bool(self.states["sampling"].get("ended"))
        for i, loss in enumerate(self.job.losses):
            if due(loss, self.position):
                with self.weights.whole_model():
                    self.states["loss"][str(i)] = value_of_main_process(
                        loss.refresh(self.job.context, self.states["loss"][str(i)])
                    )

    def step(self, seed: int) -> tuple[dict[str, float], int]:
        """Draw a batch and take one step. Returns what is logged, and the tokens used.

        ``seed`` sets the random numbers of every forward of the step. Raises Collapsed where a loss or the
        change is not finite.
        """
        batch, self.states["sampling"] = self.job.sampling.apply(self.job.context, self.states["sampling"])
        training_mode(self.weights.model)
        context = StepContext(self.job, self.weights, self.optimizer, self.states, batch, self.position, seed)
        return update(self, context)

    def tree(self) -> dict[str, Any]:
        """Return the phase's part of a checkpoint, every tensor whole, whatever the number of processes."""
        weights = self.weights
        moments = {
            i: {name: weights.gather(int(i), v) if isinstance(v, Tensor) else v for name, v in state.items()}
            for i, state in checkpoint.optimizer_tree(self.optimizer).items()
        }
        blend = {
            name: weights.gather_vector(value) if self.is_vector(name, value) else value
            for name, value in self.states["blend"].items()
        }
        tensors = {
            name: weights.gather(i, p) for i, (name, p) in enumerate(zip(weights.names, weights.parameters))
        }
        return {
            "position": self.position,
            "identity": self.job.identity,
            "weights": tensors,
            "states": {**self.states, "blend": blend},
            "optimizer": moments,
        }

    def restore(self, flat: Mapping[str, Any], folder: Any) -> None:
        """Take over the phase's part of a checkpoint.

        Raises DataError where another run wrote it, naming what differs.
        """
        recorded = checkpoint.entries_under(flat, "identity")
        different = [part for part, digest in self.job.identity.items() if recorded.get(part) != digest]
        if different:
            raise DataError(
                f"{folder} was written with another {', '.join(different)}: choose another run folder"
            )
        weights = self.weights
        with torch.no_grad():
            for i, (name, p) in enumerate(zip(weights.names, weights.parameters)):
                p.copy_(weights.shard_of(i, flat[f"weights/{name}"]))
        moments = checkpoint.entries_under(flat, "optimizer")
        checkpoint.restore_optimizer(
            self.optimizer,
            {
                name: weights.shard_of(int(name.partition("/")[0]), value)
                if isinstance(value, Tensor)
                else value
                for name, value in moments.items()
            },
        )
        for part in ("sampling", "blend", "run"):
            self.states[part] = checkpoint.entries_under(flat, f"states/{part}")
        self.states["blend"] = {
            name: weights.shard_of_vector(value) if self.is_vector(name, value) else value
            for name, value in self.states["blend"].items()
        }
        for i in self.states["loss"]:
            self.states["loss"][i] = checkpoint.entries_under(flat, f"states/loss/{i}")
        self.position = int(flat["position"])

    def is_vector(self, name: str, value: Any) -> bool:
        """Whether an entry of the blend's state has an entry for every weight's every entry."""
        return name.startswith(self.job.blend.vectors) and isinstance(value, Tensor)


def due(part: Any, position: int) -> bool:
    """Return whether a part that reads the model does so before step ``position``."""
    interval = getattr(part, "refresh_every", None)
    return interval is not None and (position % interval == 0 if interval else position == 0)


def training_mode(model: Any) -> None:
    """Set training mode; frozen normalisation layers stay in evaluation mode and keep their statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not any(
            p.requires_grad for p in module.parameters()
        ):
            module.eval()


def update(stage: Stage, step: StepContext) -> tuple[dict[str, float], int]:
    """Take one step: the blend's change, through the optimiser or straight to the weights."""
    blend, weights, states = stage.job.blend, stage.weights, stage.states
    parameters, masks = weights.parameters, weights.masks
    # 1. The blend asks for the gradients that it wants and makes one change of them.
    change, states["blend"] = blend.apply(step, states["blend"])
    change = penalised(stage, step, change)
    norm = finite_norm(step, change, stage.position)
    before = [
        p.detach().clone() if blend.corrects or mask is not None else p for p, mask in zip(parameters, masks)
    ]
    with torch.no_grad():
        # 2. A raw change goes to the weights as it is, a gradient through the optimiser.
        if blend.raw:
            for p, delta in zip(parameters, change):
                p.add_(delta)
        else:
            optimizer_step(stage, step, change, norm)
        # 3. Entries outside the masks stay; the blend has the last word on the realised change.
        for p, old, mask in zip(parameters, before, masks):
            if mask is not None:
                p.copy_(torch.where(mask.bool(), p, old))
        if blend.corrects:
            realised = [p - old for p, old in zip(parameters, before)]
            deltas, states["blend"] = blend.correct(realised, step, states["blend"])
            for p, old, delta in zip(parameters, before, deltas):
                p.copy_(old + delta)
        # 4. The selection's proximal step.
        if stage.selected.after_step:
            stage.selected.after_step(step.lr)
    return {**step.figures, **step.notes}, step.tokens


def optimizer_step(stage: Stage, step: StepContext, gradient: Sequence[Tensor], norm: Tensor) -> None:
    """Clip a gradient and hand it to the optimiser; weights that no term reaches do not decay."""
    parameters, clip = stage.weights.parameters, stage.job.settings.clip
    for p, g, reached in zip(parameters, gradient, step.reached):
        p.grad = g if reached else None
    if clip:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    for group in stage.optimizer.param_groups:
        group["lr"] = step.lr
    stage.optimizer.step()


def penalised(stage: Stage, step: StepContext, change: list[Tensor]) -> list[Tensor]:
    """Add the gradient of the selection's penalty, where it has one."""
    if stage.selected.penalty is None:
        return change
    parameters = stage.weights.parameters
    with torch.enable_grad():
        penalty = stage.selected.penalty()
    gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
    step.figures["penalty"] = float(penalty.detach())
    step.reached = [reached or g is not None for reached, g in zip(step.reached, gradients)]
    return [c if g is None else c + g for c, g in zip(change, gradients)]


def finite_norm(step: StepContext, change: Sequence[Tensor], position: int) -> Tensor:
    """Return the norm of the change. Raises Collapsed where it or a loss is not finite."""
    norm = step.norm(change)
    figures = {**step.figures, "norm of the change": float(norm)}
    if not all(math.isfinite(value) for value in figures.values()):
        listed = ", ".join(f"{name} = {value}" for name, value in figures.items())
        raise Collapsed(
            f"the loss is not finite at step {position + 1} ({listed}): lower lr or the forget weight; "
            "nothing was saved over"
        )
    return norm
