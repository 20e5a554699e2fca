"""Samplings: which rows of which roles meet in a step, and with which weight.

A sampling is a frozen dataclass with ``init(context) -> state`` and ``apply(context, state) -> (Batch,
state)``. ``state`` holds the integer position, so a run resumes by carrying on from it. A batch is ``{role:
Draw}``: row i of every role's draw is met together (the pairing).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol

import numpy as np

from unremember.engine.seams import Context, State


@dataclasses.dataclass(frozen=True)
class Draw:
    """Rows drawn from one role.

    Args:
        rows: int64[B], positions in the role.
        weights: float32[B], what each row's loss is multiplied with; ones where a sampling has no opinion.
    """

    rows: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Draw:
        """Return a draw of rows that all weigh 1."""
        return cls(rows, np.ones(len(rows), dtype=np.float32))


Batch = dict[str, Draw]


class Sampling(Protocol):
    """The sampling seam.

    ``refresh(context, state) -> state`` may read the model and change weights and rows from there on. It is
    called every ``refresh_every`` steps (0: before the first step alone; None: never).
    """

    @property
    def refresh_every(self) -> int | None: ...
    def init(self, context: Context) -> State: ...
    def apply(self, context: Context, state: State) -> tuple[Batch, State]: ...
    def steps_per_epoch(self, context: Context) -> int: ...
    def refresh(self, context: Context, state: State) -> State: ...


class PlainSampling:
    """What samplings that never read the model share: the state is the position."""

    refresh_every: ClassVar[int | None] = None

    def init(self, context: Context) -> State:
        """Start at position 0."""
        return {"position": 0}

    def refresh(self, context: Context, state: State) -> State:
        """Leave the state as it is."""
        return state
