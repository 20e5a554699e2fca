"""Names of a figure's points."""

from itertools import combinations

import pytest

from unremember.report.labels import DOT_RADIUS, boxes_overlap, label_candidates, place_labels

FIRST = next(label_candidates())
CROWDS = {
    "none": [],
    "far apart": [(10.0, 10.0), (500.0, 10.0)],
    "in one place": [(100.0, 50.0)] * 9,
    "in a row": [(100.0 + 3 * i, 50.0 + 2 * i) for i in range(12)],
    "a grid": [(40.0 * i, 15.0 * j) for i in range(6) for j in range(5)],
}


@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS.keys())
def test_no_name_covers_another_or_a_dot(crowd: list[tuple[float, float]]) -> None:
    points = [(f"model number {i}", x, y) for i, (x, y) in enumerate(crowd)]
    boxes = [place.box(*point) for place, point in zip(place_labels(points), points)]
    assert not any(boxes_overlap(first, second) for first, second in combinations(boxes, 2))
    assert not any(
        boxes_overlap(box, (x - DOT_RADIUS, y - DOT_RADIUS, x + DOT_RADIUS, y + DOT_RADIUS))
        for box in boxes
        for _, x, y in points
    )


def test_what_does_not_collide_stands_in_the_first_place() -> None:
    assert place_labels([("npo", 10, 10), ("gradient_difference", 500, 10)]) == [FIRST, FIRST]


def test_a_point_without_a_name_takes_no_room() -> None:
    assert place_labels([("", 0, 0), ("npo", 9, 0), ("kl", 16, 0)])[1] != FIRST, "a dot lies there"
    assert place_labels([("", 0, 0), ("npo", 9, 0)])[1] == FIRST


def test_boxes_meet_where_they_share_an_area() -> None:
    assert boxes_overlap((0, 0, 2, 2), (1, 1, 3, 3))
    assert not boxes_overlap((0, 0, 2, 2), (2, 0, 3, 3))
