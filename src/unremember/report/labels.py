"""Where the names of a figure's points stand, so that they can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import altair as alt

LETTER, LINE, DOT = 6.6, 12.0, 8.0
"""Of a character's width, a line's height, and what a dot keeps free around it, in pixels."""
Box = tuple[float, float, float, float]


class Place(NamedTuple):
    """Where a name stands beside its point, in pixels right and down."""

    align: Literal["left", "center", "right"]
    dx: float
    dy: float

    def box(self, name: str, x: float, y: float) -> Box:
        """Left, top, right and bottom of the name of a point."""
        width = LETTER * len(name)
        left = x + self.dx - {"left": 0.0, "center": width / 2, "right": width}[self.align]
        return left, y + self.dy - LINE / 2, left + width, y + self.dy + LINE / 2


def candidates() -> Iterator[Place]:
    """The places of a name, the best first: close by, then ever further up and down."""
    yield from (Place("left", 8, -7), Place("left", 8, 8), Place("right", -8, -7), Place("right", -8, 8))
    yield from (Place("center", 0, -14), Place("center", 0, 15))
    away = LINE
    while True:
        yield from (Place("left", 8, away + 8), Place("left", 8, -away - 7))
        away += LINE


def places(points: Sequence[tuple[str, float, float]]) -> list[Place]:
    """For every point (its name; right and down, in pixels) the first place where its name covers no dot and no name before it."""
    taken: list[Box] = [(x - DOT, y - DOT, x + DOT, y + DOT) for _, x, y in points]
    found = []
    for name, x, y in points:
        found.append(
            place := next(
                p for p in candidates() if not any(meet(p.box(name, x, y), other) for other in taken)
            )
        )
        if name:
            taken.append(place.box(name, x, y))
    return found


def meet(one: Box, other: Box) -> bool:
    """Whether two boxes share some area."""
    return all(min(one[i + 2], other[i + 2]) > max(one[i], other[i]) for i in (0, 1))


def named(base: alt.Chart, field: str, found: Sequence[Place]) -> list[alt.Chart]:
    """The layers of names, one a place; ``place`` in the data is the place of a row as text."""
    return [
        base.transform_filter(alt.datum.place == str(place))
        .mark_text(fontSize=11, **place._asdict())
        .encode(text=f"{field}:N")
        for place in dict.fromkeys(found)
    ]
