"""Losses: which direction, per example. One file a loss."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from unremember.engine.seams import Context, State
from unremember.tasks.protocol import Need

ANSWER = Need("answer", "logprobs")
ALTERNATE = Need("alternate", "logprobs")
LOGITS = Need("answer", "logits")
LABELS = Need("answer", "labels")


@dataclasses.dataclass(frozen=True)
class PlainLoss:
    """What most losses share: they read the answer's log-probabilities, no reference, and keep no state."""

    needs: ClassVar[tuple[Need, ...]] = (ANSWER,)
    reference_needs: ClassVar[tuple[Need, ...]] = ()
    per: ClassVar[Literal["example", "token"]] = "example"
    refresh_every: ClassVar[int | None] = None

    def tokens(self, counts: np.ndarray) -> np.ndarray:
        """Return int64[n], how many of each answer's tokens are read: all of them."""
        return counts

    def init(self, context: Context) -> State:
        """Start with no state."""
        return {}

    def refresh(self, context: Context, state: State) -> State:
        """Leave the state as it is."""
        return state
