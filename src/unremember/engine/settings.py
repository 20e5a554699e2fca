"""How a method is run: everything that is not the method."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from unremember.errors import ConfigError, did_you_mean, require_positive

Schedule = Literal["linear", "constant"]
Precision = Literal["fp32", "bf16"]
Dtype = Literal["stored", "fp32"]
_SEEDS = 2**32
"""How many seeds there are; numpy and scikit-learn take no others."""
SCHEDULES, PRECISIONS, DTYPES = get_args(Schedule), get_args(Precision), get_args(Dtype)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Optimiser, schedule, batch and precision of a run.

    ``batch_size`` counts rows of the anchor role a step; ``micro_tokens`` sizes one forward (memory): so many
    tokens, or images, give or take one text; ``warmup`` is in epochs; ``clip`` is the global gradient norm
    (0: off); ``max_steps`` 0: all epochs. ``precision`` is that of the forwards; weights, moments and updates
    are in single precision whatever type the model is stored in, and ``dtype`` is what the weights become in
    the end: as they were ``stored``, or ``fp32``.
    """

    epochs: int = 10
    batch_size: int = 32
    micro_tokens: int = 768
    lr: float = 1e-5
    weight_decay: float = 0.01
    warmup: float = 1.0
    schedule: Schedule = "linear"
    clip: float = 1.0
    precision: Precision = "fp32"
    dtype: Dtype = "stored"
    gradient_checkpointing: bool = False
    max_steps: int = 0
    seed: int = 0
    checkpoint_seconds: float = 120.0

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_size", "micro_tokens", "lr")
        for name in ("weight_decay", "warmup", "clip", "max_steps", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or above, not {getattr(self, name)}")
        for name in ("lr", "weight_decay", "warmup", "clip", "checkpoint_seconds"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be a finite number, not {getattr(self, name)}")
        if not 0 <= self.seed < _SEEDS:
            raise ConfigError(f"seed must be from 0 to {_SEEDS - 1}, not {self.seed}")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"unknown {name} {getattr(self, name)!r}: {did_you_mean(getattr(self, name), known)}"
                )

    def rate(self, position: int, total: int, per_epoch: int) -> float:
        """The learning rate of step ``position`` (0-based) of ``total``."""
        warm = self.warmup * per_epoch
        if position < warm:
            return self.lr * (position + 1) / max(1.0, warm)
        if self.schedule == "constant":
            return self.lr
        return self.lr * (total - position) / max(1.0, total - warm)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a method: its settings, where it is kept and who watches it.

    Args:
        settings: Optimiser, schedule, batch, precision, seed.
        folder: The run folder for log and checkpoints; a stopped run carries on there. None: nothing is kept.
        watch: ``watch(model, step)`` is called after ``every`` steps and at the end; where it returns True,
            the run ends.
        every: Steps between two calls of ``watch``; 0: an epoch.
        quiet: Show no progress.
    """

    settings: Settings = dataclasses.field(default_factory=Settings)
    folder: Path | None = None
    watch: Callable[[Any, int], bool | None] | None = None
    every: int = 0
    quiet: bool = False
