"""What a blend may ask of a step's batch: gradients and losses of its roles, here or at displaced weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from unremember.data.samplings import Step
from unremember.engine.gradients import backward, forward
from unremember.engine.job import Job


class Measure:
    """Readings of one step. Every reading replays the same dropout; displaced weights are put back bit for bit.

    ``roles`` are the recipe's, in its order; ``parameters`` the weights that may move, to which every list of tensors
    is aligned; ``lr`` is the scheduled rate of this step. ``figures`` collects each term's loss, ``notes`` what the
    blend says of itself (both are logged), ``tokens`` the tokens used.
    """

    def __init__(self, job: Job, accelerator: Accelerator, optimizer: Any, parameters: Sequence[Tensor], masks: Sequence[Tensor | None],
                 states: dict[str, Any], step: Step, position: int) -> None:  # fmt: skip
        self.job, self.accelerator, self.optimizer, self.states, self.step, self.position = job, accelerator, optimizer, states, step, position
        self.parameters, self.masks, self.roles = parameters, masks, job.recipe.roles
        self.lr = job.settings.rate(position, job.total, job.per_epoch)
        self.figures: dict[str, float] = {}
        self.notes: dict[str, float] = {}
        self.tokens = 0
        self.reached = [False] * len(parameters)

    def total(self) -> list[Tensor]:
        """The gradient of all weighted terms together, in one backward."""
        return self.read(self.roles, None)

    def gradients(self, *roles: str, at: Sequence[Tensor] | None = None) -> dict[str, list[Tensor]]:
        """The gradient of each role's weighted terms (all roles, where none is named), at weights + ``at``."""
        return {role: self.read((role,), at) for role in roles or self.roles}

    def losses(self, *roles: str, at: Sequence[Tensor] | None = None) -> dict[str, float]:
        """Each role's weighted loss, without a backward."""
        out = {}
        for role in roles or self.roles:
            with self.displaced(at), torch.no_grad():
                figures, tokens = forward(self.job, self.accelerator, self.step, (role,), dict(self.states["loss"]))
            self.tokens += tokens
            out[role] = sum(self.job.recipe.terms[i].weight * value for i, value in figures.items())
        return out

    def loss(self, role: str) -> float:
        """The loss of a role's terms without their weights, as the last gradients at the weights found it."""
        return sum(value for name, value in self.figures.items() if name.startswith(f"{role}/"))

    def draw(self) -> None:
        """Go on to the sampling's next batch."""
        self.step, self.states["sampling"] = self.job.sampling.apply(self.job.context, self.states["sampling"])

    def end(self) -> None:
        """Let this step be the run's last."""
        self.states["run"]["ended"] = True

    def note(self, **figures: float) -> None:
        """Log what the blend did."""
        self.notes |= {f"blend/{name}": float(value) for name, value in figures.items()}

    @property
    def denominators(self) -> list[Tensor]:
        """√v̂ + ε of Adam for each weight after the last step; ones before the first."""
        return [self.denominator(p) for p in self.parameters]

    def denominator(self, parameter: Tensor) -> Tensor:
        state = self.optimizer.state.get(parameter)
        if not state:
            return torch.ones_like(parameter)
        (group,) = self.optimizer.param_groups
        return (state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))).sqrt() + group["eps"]

    def read(self, roles: Sequence[str], at: Sequence[Tensor] | None) -> list[Tensor]:
        """One accumulated gradient over some roles; the losses' states move on with readings at the weights alone."""
        states = self.states["loss"] if at is None else dict(self.states["loss"])
        self.optimizer.zero_grad(set_to_none=True)
        with self.displaced(at):
            figures, tokens = backward(self.job, self.accelerator, self.step, roles, states)
        self.tokens += tokens
        if at is None:
            self.figures = {**figures, **self.figures}
        self.reached = [was or p.grad is not None for was, p in zip(self.reached, self.parameters)]
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        self.optimizer.zero_grad(set_to_none=True)
        return [g if mask is None else g * mask for g, mask in zip(found, self.masks)]

    @contextlib.contextmanager
    def displaced(self, at: Sequence[Tensor] | None) -> Iterator[None]:
        """The weights moved by ``at`` and put back; the same random numbers in every reading of the step."""
        torch.manual_seed((self.job.settings.seed << 24) + self.position)
        if at is None:
            yield
            return
        held = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for p, move in zip(self.parameters, at):
                p.add_(move)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self.parameters, held):
                    p.copy_(value)
