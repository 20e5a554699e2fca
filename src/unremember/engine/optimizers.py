"""Optimisers and schedules that a method may name; rate and weight decay belong to the run's settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Optimizer(Protocol):
    """Hyperparameters of an optimiser: ``build`` makes one over some weights."""

    def build(self, parameters: Sequence[Any], lr: float, weight_decay: float) -> torch.optim.Optimizer: ...


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def build(self, parameters: Sequence[Any], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return the optimiser over ``parameters``."""
        import torch

        return torch.optim.AdamW(parameters, lr=lr, betas=self.betas, eps=self.eps, weight_decay=weight_decay)


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum; weight decay enters the gradient."""

    momentum: float = 0.9
    nesterov: bool = False

    def build(self, parameters: Sequence[Any], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return the optimiser over ``parameters``."""
        import torch

        return torch.optim.SGD(
            parameters, lr=lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=weight_decay
        )


@dataclasses.dataclass(frozen=True)
class Milestones:
    """A rate that is multiplied by ``factor`` at each of some epochs, after the settings' warm-up."""

    epochs: tuple[float, ...]
    factor: float = 0.1

    def scale(self, epoch: float) -> float:
        """Return what the learning rate is multiplied with at an epoch (a fraction of one within it)."""
        return self.factor ** sum(epoch >= milestone for milestone in self.epochs)
