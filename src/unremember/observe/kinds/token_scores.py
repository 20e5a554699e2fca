"""Token scores: the log-probability of every token of given answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np

from unremember.data.split import Role
from unremember.observe.protocol import Arrays, ObservationContext, RoleRequest
from unremember.observe.records import TokenRecords
from unremember.observe.scoring import score
from unremember.registry import observations


@observations.register("token_scores", needs=("logits",))
@dataclasses.dataclass(frozen=True)
class TokenScores(RoleRequest):
    """Token records of a column of every row, under teacher forcing.

    Args:
        role: The role whose rows are scored.
        text: The column whose tokens are scored: ``answer``, ``paraphrased_answer``, ``perturbed_answers`` …
        moments: Whether to add the mean and the variance of the distribution that predicts each token.
    """

    text: str = "answer"
    moments: bool = False

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> dict[Self, Arrays]:
        """Score all columns of a role in one pass, in which the answers of a row share its prompt."""
        arrays: dict[Self, Arrays] = {}
        for role in dict.fromkeys(request.role for request in requests):
            of_role = [request for request in requests if request.role == role]
            columns = sorted({request.text for request in of_role})
            texts = context.task.encode(context.split, role, columns)
            moments = any(request.moments for request in of_role)
            records = score(context.model, texts, context.task.end, context.quiet, moments)
            arrays |= {request: record_arrays(records[request.text], request.moments) for request in of_role}
        return arrays

    def decode(self, arrays: Arrays, context: ObservationContext) -> TokenRecords:
        return TokenRecords(texts=column_texts(context.split[self.role], self.text), **arrays)


def record_arrays(records: TokenRecords, moments: bool) -> Arrays:
    """Return the arrays of token records, without the texts: those are never written to disk."""
    fields = {field.name: getattr(records, field.name) for field in dataclasses.fields(records)}
    dropped = ("texts",) if moments else ("texts", "moments")
    return {name: array for name, array in fields.items() if name not in dropped}


def column_texts(role: Role, column: str) -> list[str]:
    """Return the texts of a column, in order; a row of a list column has several."""
    values = [v if isinstance(v, list | tuple | np.ndarray) else (v,) for v in role.column(column)]
    return [str(text) for texts in values for text in texts]
