"""The page on families holds what is computed of each: equal to plain forwards, or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from families import FAMILIES, QUICK, TITLES, examine

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
OTHERS = [pytest.param(name, marks=pytest.mark.full) for name in FAMILIES if name not in QUICK]


def rows_of_page() -> dict[str, tuple[str, ...]]:
    """The cells of each row of the page's tables, by their first cell."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return {cells[0]: cells for cells in rows}


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_a_family_is_what_its_row_says(name: str, tokenizer: Any) -> None:
    assert examine(name, tokenizer) == rows_of_page()[name]


def test_the_page_has_every_family_and_none_that_differs() -> None:
    rows = rows_of_page()
    examined = [name for name in FAMILIES if len(rows[name]) == len(TITLES)]
    assert len(examined) >= 30
    assert [name for name in examined if {"DIFFERENT", "NOT MERGED"} & set(rows[name])] == []
