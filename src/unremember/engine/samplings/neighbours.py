"""Neighbours: how retain rows are related to the rows to forget, and which of them a sampling draws from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unremember.data.split import Row
from unremember.errors import ConfigError, did_you_mean

NEIGHBOUR_RELATIONS = ("direct", "indirect", "general")
"""In contact with somebody to forget; of the same field; neither (every row that says nothing)."""


def check_relations(relations: Sequence[str]) -> None:
    """Raise ConfigError naming the first unknown relation, or where there is none at all."""
    if not relations:
        raise ConfigError(f"relations is empty: name at least one of {', '.join(NEIGHBOUR_RELATIONS)}")
    for relation in relations:
        if relation not in NEIGHBOUR_RELATIONS:
            raise ConfigError(f"unknown relation {relation!r}: {did_you_mean(relation, NEIGHBOUR_RELATIONS)}")


def relation_of(row: Row) -> str:
    """Return the relation of a retain row; ``general`` where it says none."""
    return str(row.get("relation") or "general")


def positions_by_value(values: Sequence[Any]) -> dict[Any, list[int]]:
    """Return the positions of each value, in order of first appearance; empty values are left out."""
    positions: dict[Any, list[int]] = {}
    for i, value in enumerate(values):
        if value:
            positions.setdefault(value, []).append(i)
    return positions
