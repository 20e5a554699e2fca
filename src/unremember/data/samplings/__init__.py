"""Samplings: which rows of which roles meet in a step, and with which weight.

A sampling is a frozen dataclass with ``init(context) -> state`` and ``apply(context, state) -> (Step, state)``.
``state`` holds the integer position, so a run resumes by carrying on from it. A step is ``{role: Draw}``: row i of
every role's draw is met together (the pairing).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from unremember.data.split import Split

State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Draw:
    """Rows drawn from one role: ``rows`` int64[B], ``weights`` float32[B] (ones where a sampling has no opinion)."""

    rows: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Draw:
        return cls(rows, np.ones(len(rows), dtype=np.float32))


Step = dict[str, Draw]


class Drawn(Protocol):
    """What a sampling reads of the run: the first role is the anchor, whose length makes an epoch."""

    @property
    def split(self) -> Split: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def keys(self) -> Mapping[str, np.ndarray]: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def seed(self) -> int: ...


class Sampling(Protocol):
    """The sampling seam.

    A sampling that reads the model names an interval in steps, ``refresh_every`` (0: before the first step alone;
    None: never); ``refresh(context, state) -> state`` is then called, and may change weights and rows from there on.
    """

    @property
    def refresh_every(self) -> int | None: ...
    def init(self, context: Drawn) -> State: ...
    def apply(self, context: Drawn, state: State) -> tuple[Step, State]: ...
    def steps_per_epoch(self, context: Drawn) -> int: ...
    def refresh(self, context: Any, state: State) -> State: ...


class Steady:
    """What samplings that never read the model share: the state is the position."""

    refresh_every: ClassVar[int | None] = None

    def init(self, context: Drawn) -> State:
        return {"position": 0}

    def refresh(self, context: Any, state: State) -> State:
        return state


def mix(keys: np.ndarray, *salts: int) -> np.ndarray:
    """uint64 hashes of ``keys`` under ``salts`` (splitmix64): the random order of an epoch.

    A row's hash depends on the row and the salts alone, so removing a row leaves the order of the others.
    """
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64)
        for salt in salts:
            z = z + np.uint64(0x9E3779B97F4A7C15) * np.uint64(salt + 1)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z


def shuffled(keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """int64[n]: the order of rows in an epoch."""
    return np.argsort(mix(keys, seed, epoch), kind="stable")
