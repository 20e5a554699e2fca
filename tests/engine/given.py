"""Fixed gradients in place of those of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alone import Alone


class Given(Alone):
    """Answers what a blend asks from fixed role gradients."""

    def __init__(self, gradients: Mapping[str, Sequence[Tensor]], **attributes: Any) -> None:
        self.role_gradients, self.roles, self.notes = gradients, tuple(gradients), {}
        self.parameters = [torch.ones_like(part) for part in next(iter(gradients.values()))]
        self.__dict__ |= {"lr": 1.0, **attributes}

    def gradients(self, *roles: str, displacement: Any = None) -> dict[str, list[Tensor]]:
        return {role: list(self.role_gradients[role]) for role in roles or self.roles}

    def total(self) -> list[Tensor]:
        return [sum(parts) for parts in zip(*self.role_gradients.values())]

    def loss(self, role: str) -> float:
        return self.of_losses[role] if "of_losses" in self.__dict__ else 1.0  # type: ignore[no-any-return]

    def draw(self) -> None: ...

    def note(self, **figures: float) -> None:
        self.notes |= figures
