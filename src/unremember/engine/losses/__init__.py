"""Losses: which direction, per example. One file a loss."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from unremember.engine.seams import Context, Need, State

ANSWER = Need("answer", "logprobs")
ALTERNATE = Need("alternate", "logprobs")


@dataclasses.dataclass(frozen=True)
class Plain:
    """What most losses share: they read the answer's log-probabilities, no reference, and keep no state."""

    needs: ClassVar[tuple[Need, ...]] = (ANSWER,)
    reference_needs: ClassVar[tuple[Need, ...]] = ()
    per: ClassVar[Literal["example", "token"]] = "example"

    def init(self, context: Context) -> State:
        return {}
