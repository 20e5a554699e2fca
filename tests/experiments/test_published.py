"""The published cells are still those that this version would run: their identities have not changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unremember.experiments.cells import CellPlan
from unremember.experiments.compare import CONTROL, crossed_recipes

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
PAGES = sorted(str(page.relative_to(RESULTS)) for page in RESULTS.rglob("*.json"))
READ_FILES = ("altpo", "whp")
"""Methods whose identity depends on files that are not published."""


def plan_of(cell: dict[str, Any]) -> CellPlan:
    """The plan of a published cell."""
    name = cell["name"]
    method, seams = crossed_recipes("npo").get(name, (name, {}))
    return CellPlan(name, method, cell["seed"], cell["rate"], seams, cell["steps"] if name == CONTROL else 0)


@pytest.mark.parametrize("page", PAGES)
def test_a_published_cell_is_not_run_again(page: str) -> None:
    """A part that is renamed or has another default would run all its cells anew."""
    arenas = json.loads((RESULTS / page).read_text(encoding="utf-8"))
    cells = [cell for cells in arenas.values() for cell in cells.values() if cell["name"] not in READ_FILES]
    changed = {cell["name"] for cell in cells if not cell["identity"].endswith(f" {plan_of(cell).digest}")}
    assert cells and not changed
