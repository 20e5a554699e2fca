"""Cyclic sampling: an epoch is as long as the longest role; the shorter ones start over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unremember.data.ordering import mix, epoch_order
from unremember.engine.samplings import Batch, Draw, PlainSampling
from unremember.engine.samplings.neighbours import (
    NEIGHBOUR_RELATIONS,
    check_relations,
    positions_by_value,
    relation_of,
)
from unremember.engine.seams import Context, State
from unremember.errors import DataError
from unremember.registry import samplings


@samplings.register("cyclic", paper="Standard vs. Modular Sampling", arxiv="2509.05316", fidelity="code")
@dataclasses.dataclass(frozen=True)
class Cyclic(PlainSampling):
    """Draw every row of every role: the longest role once an epoch, the shorter ones repeated beside it.

    An epoch has ``max(len(role))`` pairs, so it is many more steps than a paired epoch on the same data.
    Compare samplings at matched steps or matched forgetting, never at equal epochs.

    Args:
        fixed: Pair row i with row i of the data in every epoch, and shuffle the pairs (the authors' table);
            else each epoch pairs anew.
        relations: The relations (direct, indirect, general) whose rows of the other roles take part.
        balanced: Take of each entity's ``indirect`` rows only as many as it has ``direct`` ones.
    """

    fixed: bool = False
    relations: Sequence[str] = NEIGHBOUR_RELATIONS
    balanced: bool = False

    def __post_init__(self) -> None:
        check_relations(self.relations)

    def steps_per_epoch(self, context: Context) -> int:
        """Return the steps in which every row is met."""
        return math.ceil(self.longest(context) / context.batch_size)

    def longest(self, context: Context) -> int:
        """Return how many rows the longest role has."""
        return max(len(self.rows(context, role)) for role in context.roles)

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        """Draw the batch at the state's position."""
        longest = self.longest(context)
        epoch, step = divmod(int(state["position"]), math.ceil(longest / context.batch_size))
        pairs = np.arange(step * context.batch_size, min((step + 1) * context.batch_size, longest))
        if self.fixed:
            pairs = epoch_order(np.arange(longest, dtype=np.uint64), context.seed, epoch)[pairs]
        batch = {}
        for role in context.roles:
            rows = self.rows(context, role)
            order = rows if self.fixed else rows[epoch_order(context.keys[role][rows], context.seed, epoch)]
            batch[role] = Draw.of(order[pairs % len(order)])
        return batch, {**state, "position": int(state["position"]) + 1}

    def rows(self, context: Context, role: str) -> np.ndarray:
        """Return int64[n], the rows of a role that take part. Raises DataError where there are none."""
        count = len(context.keys[role])
        every_relation = set(self.relations) == set(NEIGHBOUR_RELATIONS)
        if role == context.roles[0] or (every_relation and not self.balanced):
            return np.arange(count)
        rows = context.split[role].rows
        chosen = [i for i, row in enumerate(rows) if relation_of(row) in self.relations]
        if self.balanced:
            chosen = sorted({*chosen} - surplus_indirect(context, role))
        if not chosen:
            raise DataError(f"role {role!r} has no row whose relation is among {', '.join(self.relations)}")
        return np.array(chosen)


def surplus_indirect(context: Context, role: str) -> set[int]:
    """Return each entity's indirect rows beyond the number of its direct ones, drawn by their content."""
    rows = context.split[role].rows
    direct, indirect = (
        positions_by_value([row.get("neighbour") if relation_of(row) == relation else None for row in rows])
        for relation in ("direct", "indirect")
    )
    chance = mix(context.keys[role], context.seed)
    surplus: set[int] = set()
    for entity, positions in indirect.items():
        surplus.update(sorted(positions, key=chance.__getitem__)[len(direct.get(entity, ())) :])
    return surplus
