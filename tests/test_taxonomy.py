"""The taxonomy: ids that parts carry, and what is said of those that nothing implements yet."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from unremember.errors import ConfigError
from unremember.registry import REGISTRIES, Registry, elements_with_parts
from unremember.taxonomy import ELEMENT_BY_ID, ELEMENTS, FAMILIES, coverage

TESTS = "\n".join(
    file.read_text(encoding="utf-8")
    for file in Path(__file__).parent.rglob("*.py")
    if file.name != Path(__file__).name
)


def test_ids_are_unique_and_of_a_family() -> None:
    assert len(ELEMENT_BY_ID) == len(ELEMENTS) and {element.family for element in ELEMENTS} == set(FAMILIES)
    assert all(
        element.what.endswith(".") and element.how in ("code", "library", "page") for element in ELEMENTS
    )


@pytest.mark.parametrize("kind", ["methods", "audits", "attacks", "benchmarks"])
def test_every_part_of_these_kinds_carries_an_id_and_is_named_in_a_test(kind: str) -> None:
    for entry in REGISTRIES[kind].all():
        assert entry.taxonomy in ELEMENT_BY_ID and entry.row()["taxonomy"] == entry.taxonomy, entry.name
        assert f'"{entry.name}"' in TESTS or (inspect.isclass(entry.make) and entry.make.__name__ in TESTS), (
            entry.name
        )
    family = {"audits": "evaluation", "attacks": "evaluation", "benchmarks": "evaluation"}.get(kind)
    assert family is None or {ELEMENT_BY_ID[entry.taxonomy].family for entry in REGISTRIES[kind].all()} == {
        family
    }


@pytest.mark.parametrize("path", [path for element in ELEMENTS for path in element.where])
def test_what_is_no_registered_part_is_there(path: str) -> None:
    module, _, name = path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_coverage_names_what_implements_an_element_and_nothing_where_nothing_does() -> None:
    names_by_id = {
        element.id: names for element, names in coverage([("global.ascent", "one"), ("global.ascent", "two")])
    }
    assert (
        names_by_id["global.ascent"] == ("one", "two")
        and names_by_id["certified.removal"] == ()
        and list(names_by_id) == list(ELEMENT_BY_ID)
    )
    assert {element.id: names for element, names in elements_with_parts()}["around.retraining"] == (
        "retrain",
    )


def test_an_unknown_id_is_refused_when_a_part_registers() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown taxonomy id 'global.asent': did you mean 'global.ascent'"
    ):
        Registry("methods").register("theirs", taxonomy="global.asent")
