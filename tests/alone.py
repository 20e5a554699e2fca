"""What a step in one process answers of itself, for stand-ins that give a blend its gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Alone:
    """A step whose first role is to be forgotten; the other roles are retained."""

    roles: tuple[str, ...]

    @property
    def forget_roles(self) -> tuple[str, ...]:
        return self.roles[:1]

    @property
    def retain_roles(self) -> tuple[str, ...]:
        return self.roles[1:]

    def summed(self, table: Tensor) -> Tensor:
        return table

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.nn.utils.get_total_norm(tensors)
