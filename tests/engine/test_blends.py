"""Blends: PCGrad by hand and against the plain vector form, the sum fused and unfused, the Gram matrix."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from given import Given
from torch import Tensor

from unremember.data.split import Split, make_split
from unremember.engine import checkpoint, loop
from unremember.engine.blends import PlainBlend, combine, gram
from unremember.engine.blends.pcgrad import PCGrad
from unremember.engine.blends.weighted_sum import WeightedSum
from unremember.engine.recipe import Recipe
from unremember.engine.seams import State, Term
from unremember.engine.settings import Settings
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Template

SHAPES = ((3, 4), (5,), (2, 2, 2))
START = {"projected": 0, "steps": 0}


def gradients(roles: int, seed: int, lean: float = 0.0) -> dict[str, list[Tensor]]:
    """Random role gradients; with ``lean`` below 0 they oppose each other."""
    rng = torch.Generator().manual_seed(seed)
    common = [torch.randn(shape, generator=rng) for shape in SHAPES]
    return {
        f"role {i}": [
            torch.randn(shape, generator=rng) + lean * (-1) ** i * c for shape, c in zip(SHAPES, common)
        ]
        for i in range(roles)
    }


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts]).double()


def naive(vectors: Sequence[Tensor]) -> tuple[Tensor, bool]:
    """PCGrad as published, on whole vectors, the others in their order."""
    total, touched = torch.zeros_like(vectors[0]), False
    for i, own in enumerate(vectors):
        mine = own.clone()
        for j, other in enumerate(vectors):
            if i != j and mine @ other < 0:
                mine, touched = mine - (mine @ other) / (other @ other) * other, True
        total += mine
    return total, touched


def test_pcgrad_by_hand() -> None:
    """g₁ = (1, 0) and g₂ = (-1, 1) oppose: g₁ keeps (½, ½), g₂ keeps (0, 1)."""
    pair = {"forget": [torch.tensor([1.0, 0.0])], "retain": [torch.tensor([-1.0, 1.0])]}
    (update,), state = PCGrad().apply(Given(pair), START)
    assert update.tolist() == [0.5, 1.5] and state == {"projected": 1, "steps": 1}
    assert START == {"projected": 0, "steps": 0}, "the old state is left alone"


def test_pcgrad_leaves_gradients_that_agree() -> None:
    pair = {"forget": [torch.tensor([1.0, 2.0])], "retain": [torch.tensor([3.0, 0.0])]}
    (update,), state = PCGrad().apply(Given(pair), {"projected": 4, "steps": 7})
    assert update.tolist() == [4.0, 2.0] and state == {"projected": 4, "steps": 8}


def test_pcgrad_of_a_vanished_gradient_is_the_other_one() -> None:
    pair = {"forget": [torch.zeros(2)], "retain": [torch.tensor([3.0, -1.0])]}
    (update,), state = PCGrad().apply(Given(pair), START)
    assert update.tolist() == [3.0, -1.0] and state["projected"] == 0


@pytest.mark.parametrize("roles", [2, 3])
@pytest.mark.parametrize("lean", [-0.7, 0.0])
def test_pcgrad_equals_the_vector_form(roles: int, lean: float) -> None:
    state, expected = START, 0
    for seed in range(12):
        found = gradients(roles, seed, lean)
        update, state = PCGrad().apply(Given(found), state)
        plain, touched = naive([flat(parts) for parts in found.values()])
        expected += touched
        assert [part.shape for part in update] == [torch.Size(shape) for shape in SHAPES]
        assert torch.allclose(flat(update), plain, atol=1e-5)
        assert state == {"projected": expected, "steps": seed + 1}
    assert 0 < expected and (lean < 0 or expected < 12), "both kinds of step were met"


def test_pcgrad_of_two_roles_opposes_neither() -> None:
    for seed in range(8):
        found = gradients(2, seed, -0.7)
        update = flat(PCGrad().apply(Given(found), START)[0])
        assert all(update @ flat(parts) > -1e-4 for parts in found.values())


def test_gram_holds_the_plain_dot_products() -> None:
    found = gradients(3, 0)
    expected = [[float(flat(a) @ flat(b)) for b in found.values()] for a in found.values()]
    inner = gram(Given(found), found)
    assert (
        torch.allclose(inner, torch.tensor(expected, dtype=torch.float64), atol=1e-5)
        and inner.dtype == torch.float64
    )
    assert torch.equal(inner, inner.T)


def test_combine_and_sum_work_parameter_by_parameter() -> None:
    found = gradients(3, 1)
    mixed = combine(found, [1.0, -2.0, 0.5])
    for i, part in enumerate(mixed):
        a, b, c = (parts[i] for parts in found.values())
        assert torch.allclose(part, a - 2 * b + 0.5 * c)
    total, state = WeightedSum().apply(Given(found), {})
    assert torch.allclose(flat(total), sum(flat(parts) for parts in found.values())) and state == {}


# --- in the loop ---


@dataclasses.dataclass(frozen=True)
class Apart(PlainBlend):
    """The same sum, role by role."""

    def apply(self, step: Any, state: State) -> tuple[list[Tensor], State]:
        return combine(step.gradients(), [1.0] * len(step.roles)), state


@dataclasses.dataclass(frozen=True)
class Watching(PCGrad):
    """PCGrad that keeps what it was given."""

    seen: list[Mapping[str, list[Tensor]]] = dataclasses.field(default_factory=list)

    def apply(self, step: Any, state: State) -> tuple[list[Tensor], State]:
        gradients = step.gradients()
        self.seen.append({role: [part.clone() for part in parts] for role, parts in gradients.items()})
        assert set(step.figures) == {"forget/ascent", "retain/nll"}
        update, after = super().apply(Given(gradients), state)
        return update, after


@pytest.fixture(scope="module")
def split() -> Split:
    forget = [{"question": f"Who is {i}?", "answer": "the long river " * (1 + i % 3)} for i in range(6)]
    retain = [{"question": f"Where is {i}?", "answer": "near the harbour " * (1 + i % 2)} for i in range(7)]
    return make_split({"forget": forget, "retain": retain})


TERMS = (Term("forget", "ascent", 0.7), Term("retain", "nll", 2.0))


def run(
    model: Any, tokenizer: Any, split: Split, recipe: Recipe, folder: Path | None = None, **changes: Any
) -> Any:
    task = LanguageTask(tokenizer, Template("{question}\n"))
    settings = Settings(**{"epochs": 2, "batch_size": 3, "lr": 1e-4, **changes})
    return loop.run_recipe(copy.deepcopy(model), task, split, recipe, settings, folder, quiet=True)


def distance(left: Any, right: Any) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(left.parameters(), right.parameters()))


def test_the_fused_sum_equals_the_unfused_one(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    fused, apart = (run(tiny_llama, tokenizer, split, Recipe(TERMS, blend)) for blend in ("sum", Apart()))
    assert distance(fused, tiny_llama) > 1e-5 and distance(fused, apart) < 1e-6


def test_weights_without_gradient_stay_in_both_forms(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    """A forward that stops at block 0 gives deeper weights no gradient: decay must treat them alike."""
    terms = (Term("forget", {"name": "steer", "layer": 0}), Term("retain", {"name": "hold", "layer": 0}))
    fused, apart = (
        run(tiny_llama, tokenizer, split, Recipe(terms, blend), lr=1e-2, weight_decay=0.5)
        for blend in ("sum", Apart())
    )
    deep = tiny_llama.model.layers[1].mlp.up_proj.weight
    assert torch.equal(fused.model.layers[1].mlp.up_proj.weight, deep)
    assert torch.equal(apart.model.layers[1].mlp.up_proj.weight, deep)


def test_pcgrad_gets_each_roles_whole_weighted_gradient(
    tiny_llama: Any, tokenizer: Any, split: Split
) -> None:
    """Over all micro-batches of the step, the weights of the terms included."""
    pieces, whole = Watching(), Watching()
    run(tiny_llama, tokenizer, split, Recipe(TERMS, pieces), batch_size=6, micro_tokens=60, max_steps=1)
    run(
        tiny_llama,
        tokenizer,
        split,
        Recipe((Term("forget", "ascent", 1.4), Term("retain", "nll", 4.0)), whole),
        batch_size=6,
        max_steps=1,
    )
    for role in ("forget", "retain"):
        found, twice = flat(pieces.seen[0][role]), flat(whole.seen[0][role])
        assert found.norm() > 0.1 and torch.allclose(2 * found, twice, atol=1e-5)


def test_pcgrad_counts_its_projections_in_the_checkpoint(
    tiny_llama: Any, tokenizer: Any, split: Split, tmp_path: Path
) -> None:
    blend = Watching()
    run(tiny_llama, tokenizer, split, Recipe(TERMS, blend), tmp_path, epochs=4, lr=1e-2)
    expected = sum(naive([flat(parts) for parts in step.values()])[1] for step in blend.seen)
    state = checkpoint.entries_under(
        checkpoint.latest_checkpoint(tmp_path / "checkpoint"), "phases/0/states/blend"
    )
    assert state == {"projected": expected, "steps": 8} and expected > 0
