"""Truncated answers: the true answers, as long as a generation may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Self

from unremember.observe.kinds.generations import join_ids, split_ids
from unremember.observe.protocol import Arrays, ObservationContext, RoleRequest
from unremember.registry import observations


@observations.register("truncated_answers", needs=("text",))
@dataclasses.dataclass(frozen=True)
class TruncatedAnswers(RoleRequest):
    """The true answers of a role, each cut to its first tokens, to compare with generations as long.

    Args:
        role: The role whose answers are cut.
        limit: The tokens that remain of each.
    """

    limit: int
    stored: ClassVar[bool] = False  # they are the data's own, and no model runs

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> dict[Self, Arrays]:
        """Cut the answers of each request."""
        return {request: request.cut(context) for request in requests}

    def cut(self, context: ObservationContext) -> Arrays:
        """Return the ids of the cut answers."""
        texts = context.task.encode(context.split, self.role, ["answer"])["answer"]
        return join_ids([texts.answer(i)[: self.limit].tolist() for i in range(len(texts))])

    def decode(self, arrays: Arrays, context: ObservationContext) -> list[str]:
        return list(context.task.decode(split_ids(arrays)))
