"""Place the names of a figure's points so that all of them can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import altair as alt

_LETTER_WIDTH, _LINE_HEIGHT = 6.6, 12.0
"""In pixels."""
DOT_RADIUS = 8.0
"""The space that a dot keeps free around its centre, in pixels."""
_Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


class LabelPosition(NamedTuple):
    """Where a name stands beside its point, in pixels right and down."""

    align: Literal["left", "center", "right"]
    dx: float
    dy: float

    def box(self, name: str, x: float, y: float) -> _Box:
        """Return the box that the name of a point at (x, y) takes up."""
        width = _LETTER_WIDTH * len(name)
        left = x + self.dx - {"left": 0.0, "center": width / 2, "right": width}[self.align]
        return left, y + self.dy - _LINE_HEIGHT / 2, left + width, y + self.dy + _LINE_HEIGHT / 2


def label_candidates() -> Iterator[LabelPosition]:
    """Yield the positions of a name, the best first: close by, then further and further up and down."""
    yield LabelPosition("left", 8, -7)
    yield LabelPosition("left", 8, 8)
    yield LabelPosition("right", -8, -7)
    yield LabelPosition("right", -8, 8)
    yield LabelPosition("center", 0, -14)
    yield LabelPosition("center", 0, 15)
    distance = _LINE_HEIGHT
    while True:
        yield LabelPosition("left", 8, distance + 8)
        yield LabelPosition("left", 8, -distance - 7)
        distance += _LINE_HEIGHT


def place_labels(points: Sequence[tuple[str, float, float]]) -> list[LabelPosition]:
    """Return a position for each name: the first where it covers no dot and no earlier name.

    Args:
        points: The name of each point, and its pixels to the right and down; "" for a point without a name.
    """
    taken: list[_Box] = [
        (x - DOT_RADIUS, y - DOT_RADIUS, x + DOT_RADIUS, y + DOT_RADIUS) for _, x, y in points
    ]
    positions = []
    for name, x, y in points:
        for position in label_candidates():
            box = position.box(name, x, y)
            if not any(boxes_overlap(box, occupied) for occupied in taken):
                break
        positions.append(position)
        if name:
            taken.append(box)
    return positions


def boxes_overlap(first: _Box, second: _Box) -> bool:
    """Return whether two boxes share some area."""
    return all(min(first[i + 2], second[i + 2]) > max(first[i], second[i]) for i in (0, 1))


def label_layers(base: alt.Chart, field: str, positions: Sequence[LabelPosition]) -> list[alt.Chart]:
    """Return the layers of names, one for each position.

    Args:
        base: The chart, whose data have the position of each row as text in ``place``.
        field: The column of the names.
        positions: The positions of all rows.
    """
    return [
        base.transform_filter(alt.datum.place == str(position))
        .mark_text(fontSize=11, **position._asdict())
        .encode(text=f"{field}:N")
        for position in dict.fromkeys(positions)
    ]
