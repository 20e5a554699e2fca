"""Truncated answers: the true answers, as long as a generation may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import ClassVar, Self

from unremember.data.split import answer_column
from unremember.observe.kinds.generations import join_ids, split_ids
from unremember.observe.protocol import Arrays, ObservationContext, RoleRequest
from unremember.registry import observations


@observations.register("truncated_answers", needs=("text",))
@dataclasses.dataclass(frozen=True)
class TruncatedAnswers(RoleRequest):
    """The right answers of each row, each cut to its first tokens, to compare with generations as long.

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
        """Return the ids of the cut answers, and the row of each."""
        column = answer_column(context.split[self.role])
        texts = context.task.encode(context.split, self.role, [column])[column]
        ids = [texts.answer(i)[: self.limit].tolist() for i in range(len(texts))]
        return {**join_ids(ids), "rows": texts.rows}

    def decode(self, arrays: Arrays, context: ObservationContext) -> list[list[str]]:
        answers = zip(arrays["rows"].tolist(), context.task.decode(split_ids(arrays)))
        return [[text for _, text in of_row] for _, of_row in groupby(answers, key=itemgetter(0))]
