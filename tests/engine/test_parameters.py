"""Every parameter of every registered part, at values that mean nothing: it works, or it is refused."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest
import torch

from unremember import api
from unremember.audits.attacks import AttackPoint, Subject
from unremember.data.split import Split, make_split
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.errors import UnrememberError
from unremember.registry import REGISTRIES, Entry
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask

KINDS = ("methods", "losses", "blends", "samplings", "selections", "attacks")
BAD: dict[Any, tuple[Any, ...]] = {
    int: (-1, 0),
    float: (-1.0, 0.0, float("nan"), float("inf")),
    str: ("", "("),
}
"""Values that few parameters take, by their type."""


def parameters() -> list[Any]:
    """A case for every parameter and value: the entry, the parameter's name, and the value."""
    entries = [entry for kind in KINDS for entry in REGISTRIES[kind].all()]
    return [
        pytest.param(entry, name, value, id=f"{entry.kind}-{entry.name}-{name}={value}")
        for entry in entries
        for name, hint in typing.get_type_hints(entry.make).items()
        if name in entry.parameters()
        for value in bad_values(hint)
        if value != entry.parameters()[name]
    ]


def bad_values(hint: Any) -> list[Any]:
    """Values for a parameter of some type: numbers, lists of them, or no part at all."""
    if hint is Any:
        return [-1, [], ""]
    alternatives = [hint, *typing.get_args(hint)] if typing.get_origin(hint) is not typing.Literal else []
    scalars = [value for kind in alternatives if kind in BAD for value in BAD[kind]]
    is_list = any("Sequence" in str(kind) or "tuple" in str(kind) for kind in alternatives)
    return [[], *([value] for value in scalars)] if is_list else scalars


@pytest.fixture(scope="module")
def artefact(tiny_llama: Any, tokenizer: Any) -> Artefact:
    return Artefact(tiny_llama, LanguageTask(tokenizer))


@pytest.fixture(scope="module")
def split() -> Split:
    texts = {"answer": "the long river", "alternate": "No idea.", "paraphrased_question": "Who then?"}
    forget = [{"question": f"Who is {i}?", "entity": "Ida", **texts} for i in range(3)]
    near = {"neighbour": "Ida", "relation": "direct"}
    return make_split(
        {"forget": forget, "retain": [{"question": f"Where is {i}?", **near, **texts} for i in range(4)]}
    )


def use(entry: Entry, part: Any, artefact: Artefact, split: Split) -> None:
    """Build a method, take one step with any other part, or attack with it."""
    if entry.kind == "attacks":
        points: list[AttackPoint] = []
        short = {"steps": 1} if hasattr(part, "steps") else {}
        subject = Subject(artefact, split, artefact)
        dataclasses.replace(part, **short).run(subject, points.append)
        assert points
        return
    if entry.kind == "methods":
        api.method_of(part)  # builds its parts, each of which takes a step in cases of its own
        return
    if entry.kind == "losses":
        recipe = Recipe((Term("forget", part), Term("retain")))
    else:
        seam = entry.kind.removesuffix("s")
        recipe = Recipe((Term("forget", "ascent"), Term("retain")), **{seam: part})
    result = api.forget(artefact, split, recipe, max_steps=1, batch_size=2, lr=1e-4, quiet=True)
    assert all(torch.isfinite(p).all() for p in result.model.parameters())


@pytest.mark.parametrize(("entry", "name", "value"), parameters())
def test_a_meaningless_value_works_or_is_refused(
    entry: Entry, name: str, value: Any, artefact: Artefact, split: Split
) -> None:
    try:
        use(entry, REGISTRIES[entry.kind].make({"name": entry.name, name: value}), artefact, split)
    except UnrememberError as error:
        refusal = str(error)
    else:
        refusal = "none"
    assert refusal and "\n" not in refusal.strip()
