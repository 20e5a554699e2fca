"""How a recipe is run: everything that is not the method."""

from __future__ import annotations

import dataclasses
from typing import Literal

from unremember.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Optimiser, schedule, batch and precision of a run.

    ``batch_size`` counts rows of the anchor role a step; ``micro_batch`` bounds the rows in one forward (memory);
    ``warmup`` is in epochs; ``clip`` is the global gradient norm (0: off); ``max_steps`` 0: all epochs.
    """

    epochs: int = 10
    batch_size: int = 32
    micro_batch: int = 32
    lr: float = 1e-5
    weight_decay: float = 0.01
    warmup: float = 1.0
    schedule: Literal["linear", "constant"] = "linear"
    clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    max_steps: int = 0
    seed: int = 0
    checkpoint_seconds: float = 120.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch", "lr"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")

    def rate(self, position: int, total: int, per_epoch: int) -> float:
        """The learning rate of step ``position`` (0-based) of ``total``."""
        warm = self.warmup * per_epoch
        if position < warm:
            return self.lr * (position + 1) / max(1.0, warm)
        if self.schedule == "constant":
            return self.lr
        return self.lr * (total - position) / max(1.0, total - warm)
