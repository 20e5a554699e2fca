"""Generations: what a model says to prompts, decoded greedily."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import numpy as np

from unremember.data.split import Split
from unremember.observe.generating import generate
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.protocol import Arrays, ObservationContext, RoleRequest, request_digest
from unremember.registry import observations

LIMIT = 200
"""Tokens of a generation where a request names no limit: TOFU's."""


@observations.register("generations", needs=("text",))
@dataclasses.dataclass(frozen=True)
class Generations(RoleRequest):
    """Greedy generations to the prompts of a role.

    The scores of the true answers draft them, and so does what the artefact observed before this one said.

    Args:
        role: The role whose prompts are answered.
        limit: The most tokens of a generation; 0 for as many as TOFU allows (200).
    """

    limit: int = 0

    @property
    def tokens(self) -> int:
        """The most tokens of a generation."""
        return self.limit or LIMIT

    def requires(self) -> tuple[TokenScores]:
        return (TokenScores(self.role),)

    def key(self, split: Split) -> str:
        return request_digest(type(self), split[self.role].digest, str(self.tokens))

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> dict[Self, Arrays]:
        """Generate for one request after another: each has its own prompts or its own limit."""
        return {request: request.generate(context) for request in requests}

    def generate(self, context: ObservationContext) -> Arrays:
        """Return the generated ids."""
        texts = context.task.encode(context.split, self.role, ["answer"])["answer"]
        records, latest = context[TokenScores(self.role)], context.latest(self)
        earlier = split_ids(latest) if latest else ()
        ids = generate(context.model, texts, records, context.task.end, self.tokens, earlier, context.quiet)
        return join_ids(ids)

    def decode(self, arrays: Arrays, context: ObservationContext) -> list[str]:
        return list(context.task.decode(split_ids(arrays)))


def join_ids(rows: Sequence[Sequence[int]]) -> Arrays:
    """Return rows of token ids as arrays: ``ids`` int64[N] end to end, and ``offsets`` int64[n + 1]."""
    ids = np.array([token for row in rows for token in row], dtype=np.int64)
    return {"ids": ids, "offsets": np.cumsum([0, *map(len, rows)])}


def split_ids(arrays: Arrays) -> list[list[int]]:
    """Return the rows of token ids that were joined."""
    ids, offsets = arrays["ids"].tolist(), arrays["offsets"].tolist()
    return [ids[start:stop] for start, stop in pairwise(offsets)]
