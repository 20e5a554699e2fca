"""What a blend may ask of a step: gradients and losses of its roles, at the weights or at displaced ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unremember.engine.gradients import accumulate_gradients, accumulate_losses
from unremember.engine.job import Job
from unremember.engine.samplings import Batch
from unremember.engine.weights import Weights

Displacement = Sequence[Tensor] | None
"""A change of each weight, in the order of the parameters; None for none."""


def seed_generators(seed: int) -> None:
    """Seed what dropout draws from.

    Without an accelerator, ``torch.manual_seed`` would spend 0.2 ms on noting for each kind who asked.
    """
    seed_all = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
    seed_all(seed)


class StepContext:
    """One step: its batch, and the gradients and losses that a blend asks for.

    Every forward of a step replays the same dropout, and displaced weights are put back bit for bit. Lists of
    tensors are aligned to ``parameters``, the entries of the selected weights that this process holds: sums
    over entries go through ``summed`` or ``norm``.

    Attributes:
        roles: The roles of the terms, in their order.
        forget_roles: Those that are to be forgotten.
        retain_roles: The others.
        position: The number of steps taken before this one.
        lr: The scheduled learning rate of this step.
        figures: The loss of each term, by role and name; logged.
        notes: What the blend says of itself; logged.
        tokens: The tokens used so far.
    """

    def __init__(
        self,
        job: Job,
        weights: Weights,
        optimizer: Any,
        states: dict[str, Any],
        batch: Batch,
        position: int,
        seed: int,
    ) -> None:
        self.job, self.weights, self.optimizer, self.states = job, weights, optimizer, states
        self.batch, self.position, self.seed = batch, position, seed
        self.parameters, self.roles = weights.parameters, job.seams.roles
        self.forget_roles = tuple(role for role in self.roles if role in job.seams.forgets)
        self.retain_roles = tuple(role for role in self.roles if role not in job.seams.forgets)
        self.lr = job.rate(position)
        self.figures: dict[str, float] = {}
        self.notes: dict[str, float] = {}
        self.tokens = 0
        self.reached = [False] * len(self.parameters)

    def total(self) -> list[Tensor]:
        """Return the gradient of all weighted terms together, from one backward."""
        return self.gradient(self.roles, None)

    def gradients(self, *roles: str, displacement: Displacement = None) -> dict[str, list[Tensor]]:
        """Return the gradient of each named role's weighted terms (none named: of all roles)."""
        return {role: self.gradient((role,), displacement) for role in roles or self.roles}

    def losses(self, *roles: str, displacement: Displacement = None) -> dict[str, float]:
        """Return each role's weighted loss, without a backward."""
        losses = {}
        for role in roles or self.roles:
            with self.displaced(displacement), torch.no_grad():
                figures, tokens = accumulate_losses(
                    self.job, self.weights, self.batch, (role,), dict(self.states["loss"])
                )
            self.tokens += tokens
            losses[role] = sum(self.job.seams.terms[i].weight * value for i, value in figures.items())
        return losses

    def loss(self, role: str) -> float:
        """Return the unweighted loss of a role's terms, from the last gradients at the weights."""
        return sum(value for name, value in self.figures.items() if name.startswith(f"{role}/"))

    def summed(self, table: Tensor) -> Tensor:
        """Return sums over all entries of the weights, from those over the entries of this process."""
        return self.weights.summed(table)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the 2-norm of all tensors together."""
        return self.weights.global_norm(torch.nn.utils.get_total_norm(tensors))

    def draw(self) -> None:
        """Go on to the sampling's next batch."""
        self.batch, self.states["sampling"] = self.job.sampling.apply(
            self.job.context, self.states["sampling"]
        )

    def end(self) -> None:
        """Let this step be the last."""
        self.states["run"]["ended"] = True

    def note(self, **figures: float) -> None:
        """Log what the blend did."""
        self.notes |= {f"blend/{name}": float(value) for name, value in figures.items()}

    @property
    def denominators(self) -> list[Tensor]:
        """Adam's √v̂ + ε of each weight after the last step; ones before the first or without Adam."""
        return [self.denominator(p) for p in self.parameters]

    def denominator(self, parameter: Tensor) -> Tensor:
        """Adam's √v̂ + ε of one weight."""
        state = self.optimizer.state.get(parameter)
        if not state or "exp_avg_sq" not in state:
            return torch.ones_like(parameter)
        (group,) = self.optimizer.param_groups
        corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
        return corrected.sqrt_().add_(group["eps"])

    def gradient(self, roles: Sequence[str], displacement: Displacement) -> list[Tensor]:
        """Return one accumulated gradient over some roles.

        Only gradients at the weights themselves move the losses' states on."""
        states = self.states["loss"] if displacement is None else dict(self.states["loss"])
        self.optimizer.zero_grad(set_to_none=True)
        with self.displaced(displacement):
            figures, tokens = accumulate_gradients(self.job, self.weights, self.batch, roles, states)
        self.tokens += tokens
        if displacement is None:
            self.figures = {**figures, **self.figures}
        gradients = self.weights.gradients()
        self.reached = [before or g is not None for before, g in zip(self.reached, gradients)]
        dense = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients)]
        self.optimizer.zero_grad(set_to_none=True)
        return [g if mask is None else g * mask for g, mask in zip(dense, self.weights.masks)]

    @contextlib.contextmanager
    def displaced(self, displacement: Displacement) -> Iterator[None]:
        """Move the weights for the block and put them back; every forward sees the same random numbers."""
        seed_generators(self.seed)
        if displacement is None:
            yield
            return
        held = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for p, move in zip(self.parameters, displacement):
                p.add_(move)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self.parameters, held):
                    p.copy_(value)
