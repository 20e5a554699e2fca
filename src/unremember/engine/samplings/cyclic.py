"""Cyclic sampling: an epoch is as long as the longest role, the shorter ones start over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unremember.data.ordering import mix, shuffled
from unremember.engine.samplings import Batch, Draw, Steady
from unremember.engine.samplings.neighbours import RELATIONS, check_relations, places, relation
from unremember.engine.seams import Context, State
from unremember.errors import DataError
from unremember.registry import samplings


@samplings.register("cyclic", paper="Standard vs. Modular Sampling", arxiv="2509.05316", fidelity="code")
@dataclasses.dataclass(frozen=True)
class Cyclic(Steady):
    """Every row of every role: the longest role once an epoch, the shorter ones repeated beside it.

    An epoch has ``max(len(role))`` pairs, so it is many more steps than a paired epoch on the same data:
    compare samplings at matched steps or matched forgetting, never at equal epochs.

    ``fixed`` pairs row i with row i of the data in every epoch and shuffles the pairs (the authors' table); else each
    epoch pairs anew. ``relations`` says which rows of the other roles take part; with ``balanced``, of each entity's
    ``indirect`` rows only as many as it has ``direct`` ones.
    """

    fixed: bool = False
    relations: Sequence[str] = RELATIONS
    balanced: bool = False

    def __post_init__(self) -> None:
        check_relations(self.relations)

    def steps_per_epoch(self, context: Context) -> int:
        return math.ceil(self.longest(context) / context.batch_size)

    def longest(self, context: Context) -> int:
        return max(len(self.rows(context, role)) for role in context.roles)

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        longest = self.longest(context)
        epoch, step = divmod(int(state["position"]), math.ceil(longest / context.batch_size))
        at = np.arange(step * context.batch_size, min((step + 1) * context.batch_size, longest))
        if self.fixed:
            at = shuffled(np.arange(longest, dtype=np.uint64), context.seed, epoch)[at]
        drawn = {}
        for role in context.roles:
            rows = self.rows(context, role)
            order = rows if self.fixed else rows[shuffled(context.keys[role][rows], context.seed, epoch)]
            drawn[role] = Draw.of(order[at % len(order)])
        return drawn, {**state, "position": int(state["position"]) + 1}

    def rows(self, context: Context, role: str) -> np.ndarray:
        """int64[n]: the rows of a role that take part. Raises DataError where there are none."""
        keys = context.keys[role]
        if role == context.roles[0] or (set(self.relations) == set(RELATIONS) and not self.balanced):
            return np.arange(len(keys))
        rows = context.split[role].rows
        kept = [i for i, row in enumerate(rows) if relation(row) in self.relations]
        if self.balanced:
            direct, indirect = (
                places([row.get("neighbour") if relation(row) == one else None for row in rows])
                for one in RELATIONS[:2]
            )
            over = [
                i
                for name, mine in indirect.items()
                for i in sorted(mine, key=mix(keys, context.seed).__getitem__)[len(direct.get(name, ())) :]
            ]
            kept = sorted({*kept} - {*over})
        if not kept:
            raise DataError(f"role {role!r} has no row whose relation is among {', '.join(self.relations)}")
        return np.array(kept)
