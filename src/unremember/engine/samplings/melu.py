"""MELU's modular sampling: a row to forget meets the rows of its own entity's neighbourhood."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from unremember.data.ordering import mix, shuffled
from unremember.engine.samplings import Batch, Draw, Steady
from unremember.engine.samplings.neighbours import RELATIONS, check_relations, places, relation
from unremember.engine.seams import Context, State
from unremember.errors import ConfigError, DataError, nearest
from unremember.registry import samplings

Order = Literal["shuffled", "blocks", "stratified"]
Exposure = Literal["as_published", "balanced"]


@samplings.register(
    "melu",
    paper="Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning",
    arxiv="2509.05316",
    needs=("entity", "neighbour", "relation"),
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class Melu(Steady):
    """Each entity's forget rows beside its neighbours' rows (``entity`` = ``neighbour``), the shorter list starting over.

    General retain rows come once each, beside a forget row drawn from the pairs so far. The authors leave out an entity
    without neighbours; here its rows meet general ones first, so that nothing asked for stays unforgotten. An epoch is the
    whole table, in the ``order`` *shuffled* (the authors'), in *blocks* (one entity after the other, general last) or
    *stratified* (every entity spread evenly over the epoch). A row's dose is as large as its neighbourhood:
    ``exposure="balanced"`` weighs it back to the same sum for every row. ``relations`` says which retain rows take part.
    """

    relations: Sequence[str] = RELATIONS
    order: Order = "shuffled"
    exposure: Exposure = "as_published"

    def __post_init__(self) -> None:
        check_relations(self.relations)
        for value, known in ((self.order, get_args(Order)), (self.exposure, get_args(Exposure))):
            if value not in known:
                raise ConfigError(f"melu knows no {value!r}: {nearest(value, known)}")

    def steps_per_epoch(self, context: Context) -> int:
        return math.ceil(len(self.table(context)) / context.batch_size)

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        table = self.table(context)
        epoch, step = divmod(int(state["position"]), math.ceil(len(table) / context.batch_size))
        at = self.arranged(context, table, epoch)[step * context.batch_size : (step + 1) * context.batch_size]
        anchor, *others = context.roles
        drawn = {anchor: Draw(table.forget[at], self.weights(table)[at].astype(np.float32))}
        for salt, role in enumerate(others):
            ticket = mix(context.keys[anchor][table.forget[at]], context.seed, epoch, salt + 2) % len(
                context.keys[role]
            )
            drawn[role] = Draw.of(ticket.astype(np.int64) if salt else table.partner[at])
        return drawn, {**state, "position": int(state["position"]) + 1}

    def table(self, context: Context) -> Table:
        """The pairs of an epoch, the general ones last. Raises DataError where no retain row has one of the relations."""
        anchor, *others = context.roles
        entities = tuple(
            str(row.get("entity") or "") for row, _ in zip(context.split[anchor].rows, context.keys[anchor])
        )
        if not others:
            return Table(np.arange(len(entities)), np.arange(len(entities)), 0, numbered(entities))
        rows = list(zip(context.split[others[0]].rows, context.keys[others[0]]))
        near = tuple(
            str(row.get("neighbour") or "") if relation(row) in self.relations else None for row, _ in rows
        )
        forget, partner, unmet, pool = modular(entities, near)
        if not len(pool) and not len(forget):
            raise DataError(
                f"role {others[0]!r} has no row whose relation is among {', '.join(self.relations)}"
            )
        more = pool[np.arange(max(len(pool), len(unmet))) % len(pool)] if len(pool) else pool
        column = forget if len(forget) else unmet
        drawn = column[(mix(context.keys[others[0]][more], context.seed) % len(column)).astype(np.int64)]
        beside = np.concatenate([unmet, drawn[len(unmet) :]])
        return Table(
            np.concatenate([forget, beside]), np.concatenate([partner, more]), len(forget), numbered(entities)
        )

    def weights(self, table: Table) -> np.ndarray:
        """float64[n]: the weight of each pair on its forget row."""
        if self.exposure == "as_published":
            return np.ones(len(table))
        seen = np.bincount(table.forget)
        return seen.mean() / seen[table.forget]

    def arranged(self, context: Context, table: Table, epoch: int) -> np.ndarray:
        """int64[n]: the order of the pairs in an epoch."""
        pair = (
            mix(context.keys[context.roles[0]][table.forget], 0)
            ^ context.keys[context.roles[-1]][table.partner]
        )
        order = shuffled(pair, context.seed, epoch)
        if self.order == "shuffled":
            return order
        owner = table.entity[table.forget]
        chance = (mix(np.arange(len(table.entity), dtype=np.uint64), context.seed, epoch) / 2.0**64)[owner]
        if self.order == "blocks":
            return np.lexsort([chance, np.arange(len(table)) >= table.modular])
        rank = np.empty(len(table))
        for one in np.unique(owner):
            mine = order[owner[order] == one]
            rank[mine] = np.arange(len(mine)) / len(mine)
        return np.argsort(rank + chance / np.bincount(owner)[owner], kind="stable")


@dataclasses.dataclass(frozen=True)
class Table:
    """Pairs of ``forget`` int64[n] and ``partner`` int64[n], the first ``modular`` of which share their entity.

    ``entity`` int64[N] numbers the entity of each row of the anchor role.
    """

    forget: np.ndarray
    partner: np.ndarray
    modular: int
    entity: np.ndarray

    def __len__(self) -> int:
        return len(self.forget)


@functools.lru_cache(maxsize=8)
def numbered(entities: tuple[str, ...]) -> np.ndarray:
    """int64[N]: one number an entity; a row without is an entity of its own."""
    return np.unique([entity or f"\x00{i}" for i, entity in enumerate(entities)], return_inverse=True)[1]


@functools.lru_cache(maxsize=8)
def modular(entities: tuple[str, ...], near: tuple[str | None, ...]) -> tuple[np.ndarray, ...]:
    """Four int64 arrays: both columns of the same-entity pairs in the authors' order, the forget rows in none of them, and
    the retain rows that are nobody's neighbour (where forget rows are left and there are no such: all).

    ``near`` says of each retain row whose neighbour it is ("" for nobody's, None for a row that takes no part).
    """
    mine, theirs = places(entities), places(near)
    met = [entity for entity in mine if entity in theirs]
    forget, partner = [], []
    for entity in met:
        count = max(len(mine[entity]), len(theirs[entity]))
        forget += [mine[entity][i % len(mine[entity])] for i in range(count)]
        partner += [theirs[entity][i % len(theirs[entity])] for i in range(count)]
    unmet = [i for i, entity in enumerate(entities) if entity not in theirs]
    taking = [i for i, name in enumerate(near) if name is not None]
    pool = [i for i in taking if near[i] not in mine] or (taking if unmet else [])
    return tuple(np.array(rows, dtype=np.int64) for rows in (forget, partner, unmet, pool))
