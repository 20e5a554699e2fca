"""Neighbours: how retain rows stand to those to forget, and which of them a sampling draws from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unremember.data.split import Row
from unremember.errors import ConfigError, nearest

RELATIONS = ("direct", "indirect", "general")
"""In contact with somebody to forget; of the same field; neither (every row that says nothing)."""


def check_relations(relations: Sequence[str]) -> None:
    """Raise ConfigError naming the first unknown relation."""
    for relation in relations:
        if relation not in RELATIONS:
            raise ConfigError(f"unknown relation {relation!r}: {nearest(relation, RELATIONS)}")


def relation(row: Row) -> str:
    return str(row.get("relation") or "general")


def places(values: Sequence[Any]) -> dict[Any, list[int]]:
    """Value → where it stands, in order of first appearance; values that are empty are left out."""
    found: dict[Any, list[int]] = {}
    for i, value in enumerate(values):
        if value:
            found.setdefault(value, []).append(i)
    return found
