"""MELU's modular sampling: a row to forget meets the rows of its own entity's neighbourhood."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal, get_args

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
from unremember.errors import ConfigError, DataError, did_you_mean
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
class MELU(PlainSampling):
    """Draw each entity's forget rows beside its neighbours' rows, the shorter list repeated.

    A retain row's ``neighbour`` names the ``entity`` of the forget rows.

    General retain rows come once each, beside a forget row drawn from the pairs so far. The authors leave out
    an entity without neighbours; here its rows meet general ones first, so that no requested row stays
    unforgotten. An epoch is the whole table of pairs.

    Args:
        relations: The relations (direct, indirect, general) whose retain rows take part.
        order: Order of the pairs in an epoch: ``shuffled`` (the authors'), in ``blocks`` (one entity after
            another, general last) or ``stratified`` (every entity spread evenly over the epoch).
        exposure: A row is met as often as its neighbourhood is large (``as_published``); ``balanced`` weighs
            it back to the same sum for every row.
    """

    relations: Sequence[str] = NEIGHBOUR_RELATIONS
    order: Order = "shuffled"
    exposure: Exposure = "as_published"

    def __post_init__(self) -> None:
        check_relations(self.relations)
        for value, known in ((self.order, get_args(Order)), (self.exposure, get_args(Exposure))):
            if value not in known:
                raise ConfigError(f"melu knows no {value!r}: {did_you_mean(value, known)}")

    def steps_per_epoch(self, context: Context) -> int:
        """Return the steps in which every pair of the table is met once."""
        return math.ceil(len(self.table(context)) / context.batch_size)

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        """Draw the batch at the state's position; a third role and those after it are drawn at random."""
        table = self.table(context)
        epoch, step = divmod(int(state["position"]), math.ceil(len(table) / context.batch_size))
        order = self.epoch_order(context, table, epoch)
        pairs = order[step * context.batch_size : (step + 1) * context.batch_size]
        anchor, *partners = context.roles
        batch = {anchor: Draw(table.forget[pairs], self.weights(table)[pairs].astype(np.float32))}
        for salt, role in enumerate(partners):
            keys = context.keys[anchor][table.forget[pairs]]
            ticket = mix(keys, context.seed, epoch, salt + 2) % len(context.keys[role])
            batch[role] = Draw.of(ticket.astype(np.int64) if salt else table.partner[pairs])
        return batch, {**state, "position": int(state["position"]) + 1}

    def table(self, context: Context) -> PairTable:
        """Return the pairs of an epoch. Raises DataError where no retain row has one of the relations."""
        anchor, *partners = context.roles
        anchored = zip(context.split[anchor].rows, context.keys[anchor])
        entities = tuple(str(row.get("entity") or "") for row, _ in anchored)
        if not partners:
            rows = np.arange(len(entities))
            return PairTable(rows, rows, 0, entity_numbers(entities))
        near = neighbours_of(context, partners[0], self.relations)
        # 1. Pairs of the same entity, the shorter side repeated.
        forget, partner, unmet, pool = modular_pairs(entities, near)
        if not len(pool) and not len(forget):
            raise DataError(
                f"role {partners[0]!r} has no row whose relation is among {', '.join(self.relations)}"
            )
        # 2. General rows once each, first beside the rows that have no neighbour, then beside a forget row
        #    drawn from the pairs so far: entities with many neighbours are drawn more often.
        general = pool[np.arange(max(len(pool), len(unmet))) % len(pool)] if len(pool) else pool
        column = forget if len(forget) else unmet
        chance = mix(context.keys[partners[0]][general], context.seed) % len(column)
        drawn = column[chance.astype(np.int64)]
        beside = np.concatenate([unmet, drawn[len(unmet) :]])
        # 3. The table is both, one after the other.
        return PairTable(
            np.concatenate([forget, beside]),
            np.concatenate([partner, general]),
            len(forget),
            entity_numbers(entities),
        )

    def weights(self, table: PairTable) -> np.ndarray:
        """Return float64[n], the weight of each pair on its forget row."""
        if self.exposure == "as_published":
            return np.ones(len(table))
        visits = np.bincount(table.forget)
        return visits.mean() / visits[table.forget]

    def epoch_order(self, context: Context, table: PairTable, epoch: int) -> np.ndarray:
        """Return int64[n], the order of the pairs in an epoch."""
        forget_keys = mix(context.keys[context.roles[0]][table.forget], 0)
        order = epoch_order(forget_keys ^ context.keys[context.roles[-1]][table.partner], context.seed, epoch)
        if self.order == "shuffled":
            return order
        owner = table.entity[table.forget]
        entities = np.arange(len(table.entity), dtype=np.uint64)
        chance = (mix(entities, context.seed, epoch) / 2.0**64)[owner]
        if self.order == "blocks":
            return np.lexsort([chance, np.arange(len(table)) >= table.modular])
        # Stratified: pair k of an entity's n pairs stands at (k + chance) / n of the epoch.
        rank = np.empty(len(table))
        for entity in np.unique(owner):
            pairs = order[owner[order] == entity]
            rank[pairs] = np.arange(len(pairs)) / len(pairs)
        return np.argsort(rank + chance / np.bincount(owner)[owner], kind="stable")


@dataclasses.dataclass(frozen=True)
class PairTable:
    """The pairs of an epoch, the general ones last.

    Args:
        forget: int64[n], the row of the anchor role in each pair.
        partner: int64[n], the row of the second role.
        modular: How many pairs share their entity; they come first.
        entity: int64[N], the number of the entity of each row of the anchor role.
    """

    forget: np.ndarray
    partner: np.ndarray
    modular: int
    entity: np.ndarray

    def __len__(self) -> int:
        return len(self.forget)


def neighbours_of(context: Context, role: str, relations: Sequence[str]) -> tuple[str | None, ...]:
    """Return whose neighbour each row of a role is: "" for nobody's, None for a row that takes no part."""
    keyed = zip(context.split[role].rows, context.keys[role])
    return tuple(
        str(row.get("neighbour") or "") if relation_of(row) in relations else None for row, _ in keyed
    )


@functools.lru_cache(maxsize=8)
def entity_numbers(entities: tuple[str, ...]) -> np.ndarray:
    """Return int64[N], one number an entity; a row without is an entity of its own."""
    return np.unique([entity or f"\x00{i}" for i, entity in enumerate(entities)], return_inverse=True)[1]


@functools.lru_cache(maxsize=8)
def modular_pairs(entities: tuple[str, ...], near: tuple[str | None, ...]) -> tuple[np.ndarray, ...]:
    """Pair the rows of each entity with the rows of its neighbourhood.

    Args:
        entities: The entity of each forget row.
        near: Whose neighbour each retain row is ("" for nobody's, None for a row that takes no part).

    Returns:
        Four int64 arrays: both columns of the same-entity pairs in the authors' order, the forget rows in
        none of them, and the retain rows that are nobody's neighbour (where forget rows are left and there
        are no such: all).
    """
    forget_rows, retain_rows = positions_by_value(entities), positions_by_value(near)
    forget, partner = [], []
    for entity in forget_rows:
        if entity not in retain_rows:
            continue
        count = max(len(forget_rows[entity]), len(retain_rows[entity]))
        forget += [forget_rows[entity][i % len(forget_rows[entity])] for i in range(count)]
        partner += [retain_rows[entity][i % len(retain_rows[entity])] for i in range(count)]
    unmet = [i for i, entity in enumerate(entities) if entity not in retain_rows]
    taking_part = [i for i, name in enumerate(near) if name is not None]
    pool = [i for i in taking_part if near[i] not in forget_rows] or (taking_part if unmet else [])
    return tuple(np.array(rows, dtype=np.int64) for rows in (forget, partner, unmet, pool))
