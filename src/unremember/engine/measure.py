"""What a blend may ask of a step's batch: gradients and losses of its roles, here or at displaced weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unremember.data.samplings import Step
from unremember.engine.gradients import backward, forward
from unremember.engine.job import Job
from unremember.engine.processes import Weights


class Measure:
    """Readings of one step. Every reading replays the same dropout; displaced weights are put back bit for bit.

    ``roles`` are the recipe's, in its order; ``parameters`` the weights that may move, to which every list of tensors
    is aligned: the entries of them that this process holds, so that what a blend sums over entries goes through ``summed``
    or ``norm``. ``lr`` is the scheduled rate of this step. ``figures`` collects each term's loss, ``notes`` what the blend
    says of itself (both are logged), ``tokens`` the tokens used.
    """

    def __init__(self, job: Job, weights: Weights, optimizer: Any, states: dict[str, Any], step: Step, position: int) -> None:
        self.job, self.weights, self.optimizer, self.states, self.step, self.position = job, weights, optimizer, states, step, position
        self.parameters, self.roles = weights.parameters, job.recipe.roles
        self.lr = job.settings.rate(position, job.total, job.per_epoch)
        self.figures: dict[str, float] = {}
        self.notes: dict[str, float] = {}
        self.tokens = 0
        self.reached = [False] * len(self.parameters)

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
                figures, tokens = forward(self.job, self.weights, self.step, (role,), dict(self.states["loss"]))
            self.tokens += tokens
            out[role] = sum(self.job.recipe.terms[i].weight * value for i, value in figures.items())
        return out

    def loss(self, role: str) -> float:
        """The loss of a role's terms without their weights, as the last gradients at the weights found it."""
        return sum(value for name, value in self.figures.items() if name.startswith(f"{role}/"))

    def summed(self, table: Tensor) -> Tensor:
        """Sums over entries of weights (inner products), from those over the entries that this process holds."""
        return self.weights.summed(table)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """The 2-norm of all tensors together."""
        return self.weights.joined(torch.nn.utils.get_total_norm(tensors))

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
        return (state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))).sqrt_().add_(group["eps"])

    def read(self, roles: Sequence[str], at: Sequence[Tensor] | None) -> list[Tensor]:
        """One accumulated gradient over some roles; the losses' states move on with readings at the weights alone."""
        states = self.states["loss"] if at is None else dict(self.states["loss"])
        self.optimizer.zero_grad(set_to_none=True)
        with self.displaced(at):
            figures, tokens = backward(self.job, self.weights, self.step, roles, states)
        self.tokens += tokens
        if at is None:
            self.figures = {**figures, **self.figures}
        there = self.weights.gradients()
        self.reached = [was or g is not None for was, g in zip(self.reached, there)]
        found = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, there)]
        self.optimizer.zero_grad(set_to_none=True)
        return [g if mask is None else g * mask for g, mask in zip(found, self.weights.masks)]

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
