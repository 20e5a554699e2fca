"""HAMU: by hand, against random search, its promise and its price on the micro-world, and what it says of
hardness."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import pytest
import torch
from micro import (
    UNLEARN,
    Everything,
    Fixed,
    Watched,
    accuracy,
    goes_on_exactly,
    learned,
    losses,
    passes,
    unlearn,
)
from torch import Tensor

from unremember.data.split import make_split
from unremember.engine import loop
from unremember.engine.blends import PlainBlend
from unremember.engine.blends.hamu import HAMU, BlockSolution, layer_blocks, solve_blocks
from unremember.engine.recipe import Recipe
from unremember.engine.samplings.paired import Paired
from unremember.engine.seams import State
from unremember.engine.selections.all import All
from unremember.engine.settings import Settings
from unremember.engine.step import StepContext
from unremember.errors import ConfigError
from unremember.methods.language.hamu import hamu
from unremember.plan.hardness import Hardness, measure_hardness
from unremember.tasks.image import ImageTask
from unremember.tasks.language import LanguageTask


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def blend_step(
    retain: Sequence[Tensor], forget: Sequence[Tensor], blend: HAMU, lr: float = 1.0
) -> tuple[list[Tensor], State, dict[str, float]]:
    """What a blend makes of g_r = ∇L(retain) and g_f = ∇L(forget); the forget role descends −L."""
    step = Fixed({"forget": [-g for g in forget], "retain": list(retain)}, lr=lr)
    update, state = blend.apply(step, blend.init(None))  # type: ignore[arg-type]
    return update, state, {**step.notes, "ended": step.ended}


def problem(
    retain: Tensor, forget: Tensor, budget: float, radius: float, **more: Any
) -> tuple[Tensor, dict[str, float]]:
    """Minimise g_r·Δ subject to g_f·Δ ≥ budget, |Δ| ≤ radius: one block at lr = radius / |g_r|."""
    lr = radius / float(retain.norm())
    blend = HAMU(constraint="absolute", amount=budget / lr, max_grad_norm=0.0, **more)
    (delta,), _, notes = blend_step([retain], [forget], blend, lr)
    return delta, notes


# --- 1, by hand ---


@pytest.mark.parametrize(
    ("forget", "delta", "cost", "gain", "stop"),
    [
        ((0.6, 0.8), (-0.0392820323, 0.0919615242), -0.0392820323, 0.05, False),
        ((0.9, 0.4358899), (0.0072508, 0.0997368), 0.0072508, 0.05, True),
        ((-0.6, 0.8), (-0.1, 0.0), -0.1, 0.06, False),
        ((-0.9, 0.4358899), (-0.1, 0.0), -0.1, 0.09, False),
    ],
)
def test_by_hand(
    forget: tuple[float, float], delta: tuple[float, float], cost: float, gain: float, stop: bool
) -> None:
    made, notes = problem(vector(1, 0), vector(*forget), 0.05, 0.1)
    assert made.tolist() == pytest.approx(delta, abs=1e-7)
    assert notes["retain"] == pytest.approx(cost, abs=1e-7) and notes["forget"] == pytest.approx(
        gain, abs=1e-7
    )
    assert notes["stop"] == stop == bool(notes["damaged"])


def test_the_published_budget_stops_at_the_easiest_step() -> None:
    assert problem(vector(1, 0), vector(-0.9, 0.4358899), 0.05, 0.1, as_published_code=True)[1]["stop"]
    assert not problem(vector(1, 0), vector(0.6, 0.8), 0.05, 0.1, as_published_code=True)[1]["stop"]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_colinear_gradients(side: float) -> None:
    made, notes = problem(vector(2, 0), vector(side * 3, 0), 0.09, 0.1)
    assert made.tolist() == pytest.approx([0.03, 0.0] if side > 0 else [-0.1, 0.0], abs=1e-15) and bool(
        notes["damaged"]
    ) == (side > 0)


# --- 2, optimality ---


@pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.full)])
def test_no_feasible_point_is_better(count: int) -> None:
    rng = torch.Generator().manual_seed(0)
    kinds = {"direct": 0, "damaged": 0, "free": 0}
    for i in range(count):
        size = 2 + i % 4
        retain, forget = torch.randn(2, size, generator=rng, dtype=torch.float64)
        radius, share = (float(torch.rand((), generator=rng, dtype=torch.float64)) for _ in range(2))
        budget = share * radius * float(forget.norm())
        made, notes = problem(retain, forget, budget, radius)
        points = torch.randn(20_000, size, generator=rng, dtype=torch.float64)
        points *= (
            radius
            / points.norm(dim=1, keepdim=True)
            * torch.rand(20_000, 1, generator=rng, dtype=torch.float64) ** (1 / size)
        )
        feasible = points[points @ forget >= budget]
        assert float(forget @ made) >= budget * (1 - 1e-9) and float(made.norm()) == pytest.approx(
            radius, rel=1e-9
        )
        assert not len(feasible) or float((feasible @ retain).min()) >= float(retain @ made) - 1e-12
        second = (
            retain.square().sum() * forget.square().sum() - budget**2 * retain.square().sum() / radius**2
        ).sqrt()
        assert (
            (float(retain @ made) > 0) == (float(retain @ forget) > float(second)) == bool(notes["damaged"])
        )
        kinds["direct" if notes["direct"] else "damaged" if notes["damaged"] else "free"] += 1
    assert min(kinds.values()) >= 5, kinds


def test_the_cost_grows_with_the_angle() -> None:
    angles = torch.linspace(torch.pi - 0.01, 0.01, 200)
    costs = [
        float(problem(vector(1, 0), torch.stack([a.cos(), a.sin()]).double(), 0.05, 0.1)[0][0])
        for a in angles
    ]
    assert (
        all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(costs))
        and costs[0] < 0 < costs[-1]
    )


# --- 3, blocks ---


def blocks(seed: int, lean: float) -> tuple[list[Tensor], list[Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    retain = [
        torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((3, 4), (5,), (2, 2, 2), (7,))
    ]
    return retain, [torch.randn(g.shape, generator=rng, dtype=torch.float64) * 0.3 + lean * g for g in retain]


@pytest.mark.parametrize(("lean", "every"), [(0.5, True), (-0.2, False)])
def test_blocks_share_the_demand(lean: float, every: bool) -> None:
    """Form C equals the problem solved block by block with R = lr |g_r| and Q split by |g_r| |g_f|."""
    lr, c, kinds = 0.1, 0.4, []
    for seed in range(10):
        retain, forget = blocks(seed, lean)
        update, state, notes = blend_step(retain, forget, HAMU(amount=c, max_grad_norm=0.0), lr)
        spread = [float(r.norm() * f.norm()) for r, f in zip(retain, forget)]
        demand = c * lr * sum(spread)
        assert notes["demand"] == pytest.approx(demand, rel=1e-12)
        for r, f, s, delta in zip(retain, forget, spread, update):
            alone, _ = problem(r.flatten(), f.flatten(), demand * s / sum(spread), lr * float(r.norm()))
            assert torch.allclose(alone, delta.flatten(), atol=1e-12) and float(
                delta.norm()
            ) == pytest.approx(lr * float(r.norm()), rel=1e-12)
        gained = sum(float((f * d).sum()) for f, d in zip(forget, update))
        assert gained >= demand * (1 - 1e-12) and notes["forget"] == pytest.approx(gained, rel=1e-12)
        assert state["direct"] + state["rectified"] == 4 and (not every or state["direct"] == 0)
        kinds.append(state["direct"])
        if state["direct"] == 0:
            assert gained == pytest.approx(demand, rel=1e-12)
        absolute, _, _ = blend_step(
            retain, forget, HAMU(constraint="absolute", amount=demand / lr, max_grad_norm=0.0), lr
        )
        assert all(torch.allclose(a, d, atol=1e-12) for a, d in zip(absolute, update)), (
            "the same demand, said in both ways"
        )
    assert every or sum(kinds) >= 3


def test_everything_as_one_block_is_the_concatenation() -> None:
    retain, forget = blocks(1, 0.2)
    update, _, _ = blend_step(retain, forget, HAMU(amount=0.5, granularity="global", max_grad_norm=0.0), 0.1)
    joined = [torch.cat([g.flatten() for g in parts]) for parts in (retain, forget)]
    (whole,), _, _ = blend_step(joined[:1], joined[1:], HAMU(amount=0.5, max_grad_norm=0.0), 0.1)
    flat = torch.cat([d.flatten() for d in update])
    assert torch.allclose(flat, whole, atol=1e-14) and float(flat.norm()) == pytest.approx(
        0.1 * float(joined[0].norm()), rel=1e-12
    )
    tensors, _, _ = blend_step(retain, forget, HAMU(amount=0.5, max_grad_norm=0.0), 0.1)
    assert not torch.allclose(torch.cat([d.flatten() for d in tensors]), whole, atol=1e-3)


def test_a_layer_is_a_numbered_block_or_a_module() -> None:
    names = [
        "model.embed.weight",
        "model.layers.0.mlp.up.weight",
        "model.layers.0.norm.weight",
        "model.layers.11.mlp.up.weight",
        "head.weight",
        "head.bias",
    ]
    assert layer_blocks(names).tolist() == [0, 1, 1, 2, 3, 3] and layer_blocks(
        ["0.weight", "0.bias", "2.weight"]
    ).tolist() == [0, 0, 1]


def test_layers_are_solved_together() -> None:
    _, split, net = learned(0.9, 0, 30)
    watched = Watched(HAMU(amount=0.5, granularity="layer", max_grad_norm=0.0))
    done, _, _ = unlearn(0.9, 0, watched, lr=0.1, steps=1, trained=30, sampling=Everything())
    change = [a.detach() - b.detach() for a, b in zip(done.parameters(), net.parameters())]
    gradients = []
    for role in ("forget", "retain"):
        data = ImageTask().encode(split, role, ["input"])
        gradients.append(
            torch.autograd.grad(
                torch.nn.functional.cross_entropy(net(data.inputs), data.labels), list(net.parameters())
            )
        )
    for i in (0, 2, 4):
        forget, retain, delta = (
            torch.cat([g.flatten() for g in parts[i : i + 2]]) for parts in (*gradients, change)
        )
        assert float(delta.norm()) == pytest.approx(0.1 * float(retain.norm()), rel=1e-9)
        assert float(forget @ delta) >= 0.5 * 0.1 * float(retain.norm() * forget.norm()) * (1 - 1e-9)


def test_the_dual_forgets_most_while_the_retain_loss_falls() -> None:
    """HAMU-U is the same problem with (g_r, g_f) → (−g_f, −g_r)."""
    retain, forget = blocks(2, 0.2)
    update, _, notes = blend_step(retain, forget, HAMU("u", amount=0.4, max_grad_norm=0.0), 0.1)
    swapped, _, _ = blend_step(
        [-f for f in forget], [-r for r in retain], HAMU(amount=0.4, max_grad_norm=0.0), 0.1
    )
    assert all(torch.allclose(a, b, atol=1e-14) for a, b in zip(update, swapped))
    falls = -sum(float((r * d).sum()) for r, d in zip(retain, update))
    assert falls >= notes["demand"] * (1 - 1e-12) and notes["retain"] == pytest.approx(-falls, rel=1e-12)
    assert notes["forget"] == pytest.approx(
        sum(float((f * d).sum()) for f, d in zip(forget, update)), rel=1e-12
    )


def test_gradients_are_clipped_apart_and_predictions_are_of_the_whole_loss() -> None:
    retain, forget = ([100 * g for g in parts] for parts in blocks(3, 0.2))
    update, _, notes = blend_step(retain, forget, HAMU(), 0.1)
    assert float(torch.nn.utils.get_total_norm(update)) == pytest.approx(0.1, rel=1e-9)
    assert notes["forget"] == pytest.approx(
        sum(float((f * d).sum()) for f, d in zip(forget, update)), rel=1e-9
    )
    assert notes["retain"] == pytest.approx(
        sum(float((r * d).sum()) for r, d in zip(retain, update)), rel=1e-9
    )


# --- stopping ---


def test_what_cannot_be_had_is_clipped_or_ends_the_run() -> None:
    retain, forget = blocks(4, 0.2)
    spread = sum(float(r.norm() * f.norm()) for r, f in zip(retain, forget))
    wanted = HAMU(constraint="absolute", amount=1.5 * spread, max_grad_norm=0.0)
    update, state, notes = blend_step(retain, forget, wanted, 0.1)
    most, _, _ = blend_step(retain, forget, HAMU(amount=0.95, max_grad_norm=0.0), 0.1)
    assert (
        state["clipped"] == 1
        and not notes["ended"]
        and all(torch.allclose(a, b, atol=1e-14) for a, b in zip(update, most))
    )
    none, _, notes = blend_step(retain, forget, dataclasses.replace(wanted, on_infeasible="stop"), 0.1)
    assert notes["ended"] and not any(part.any() for part in none)
    still, _, notes = blend_step(retain, [torch.zeros_like(f) for f in forget], wanted, 0.1)
    assert all(torch.allclose(d, -0.1 * r) for d, r in zip(still, retain)) and notes["clipped"], (
        "a memorised forget set has no gradient"
    )


def test_the_run_ends_after_its_patience() -> None:
    """At c = 0.97 the rule fires now and then, at last five times in a row; at 0.1 never."""
    fired = {}
    for c, stop in ((0.97, False), (0.97, True), (0.1, True)):
        watched = Watched(HAMU(amount=c, stop=stop))
        unlearn(0.9, 0, watched, until=-1.0, lr=0.2, steps=30)
        fired[c, stop] = [bool(note["stop"]) for note in watched.notes]
    free, ended = fired[0.97, False], fired[0.97, True]
    first = next(i for i in range(5, 31) if all(free[i - 5 : i]))
    assert ended == free[:first] and 5 < first < 30 and any(free[: first - 5])
    assert fired[0.1, True] == [False] * 30


# --- 4, the promise ---


def realised(lr: float, c: float) -> tuple[float, float, float]:
    """40 full steps: the forget loss's rise over what was asked and over what was predicted, and the retain
    loss's over predicted."""
    world, _, net = learned(0.6, 0, 250)
    watched = Watched(HAMU(amount=c, max_grad_norm=0.0))
    done, _, _ = unlearn(0.6, 0, watched, until=-1.0, lr=lr, steps=40, trained=250, sampling=Everything())
    forget, retain = (b - a for a, b in zip(losses(net, world), losses(done, world)))
    asked, *predicted = (sum(note[name] for note in watched.notes) for name in ("demand", "forget", "retain"))
    return forget / asked, forget / predicted[0], retain / predicted[1]


def test_the_promise_is_kept_at_small_steps_and_known_to_fail_at_large_ones() -> None:
    asked, forget, retain = realised(0.02, 0.5)
    assert (
        asked == pytest.approx(1.0, abs=0.05)
        and forget == pytest.approx(1.0, abs=0.05)
        and retain == pytest.approx(0.99, abs=0.02)
    )
    assert 0.95 < realised(0.1, 0.5)[0] < 1.25
    _, forget, retain = realised(0.5, 0.9)
    assert abs(forget - 1) > 0.2 and abs(retain - 1) > 0.5, "out of the first-order range"


# --- 5, the trade-off ---


@dataclasses.dataclass(frozen=True)
class Separate(PlainBlend):
    """GradDiff by gradient descent with both gradients clipped as HAMU clips them: the stronger of the
    plain baselines."""

    raw: ClassVar[bool] = True

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        forget, retain = (HAMU().clip(step, g)[0] for g in step.gradients().values())
        return [-step.lr * (f + r) for f, r in zip(forget, retain)], state


def traded(blend: Any, seeds: Sequence[int], lr: float = 0.2) -> tuple[float, float]:
    """Mean retain accuracy, and mean steps, where 30 % of the forget facts are left."""
    runs = [unlearn(0.9, seed, blend, until=0.3, lr=lr) for seed in seeds]
    assert all(steps < 400 for _, _, steps in runs)
    return mean(accuracy(net, world, forget=False) for net, world, _ in runs), mean(
        steps for _, _, steps in runs
    )


@pytest.mark.parametrize(
    "ratios", [(0.3, 0.6, 0.9), pytest.param((0.1, 0.3, 0.5, 0.7, 0.9), marks=pytest.mark.full)], ids=len
)
def test_less_a_step_keeps_more(ratios: Sequence[float]) -> None:
    found = [traded(HAMU(amount=c), (0, 1)) for c in ratios]
    assert all(a > b for (a, _), (b, _) in itertools.pairwise(found)), "retain accuracy falls with c"
    assert all(a > b for (_, a), (_, b) in itertools.pairwise(found)), "and so do the steps"


def test_it_keeps_more_than_gradient_difference() -> None:
    kept, _ = traded(HAMU(), (0, 1, 2))
    plain = max(traded(Separate(), (0, 1, 2), lr)[0] for lr in (0.2, 0.05))
    assert kept >= 0.94 and kept >= plain + 0.03, (kept, plain)


# --- 6, hardness ---


def cosines(overlap: float, seeds: Sequence[int]) -> float:
    """Mean cos(g_r, g_f) over the first 60 steps."""
    found = []
    for seed in seeds:
        watched = Watched(HAMU(amount=0.5))
        unlearn(overlap, seed, watched, until=-1.0, lr=0.2, steps=60)
        found.append(mean(note["cosine"] for note in watched.notes))
    return mean(found)


def test_hardness_rises_with_what_the_entities_share() -> None:
    """0 and 0.3 are within the spread of seeds (0.05 each): the full check takes more of them."""
    low, middle, high = (cosines(overlap, (0, 1)) for overlap in (0.3, 0.6, 0.9))
    assert low + 0.05 < middle and middle + 0.05 < high


@pytest.mark.full
def test_hardness_rises_at_every_overlap() -> None:
    found = [cosines(overlap, range(6)) for overlap in (0.0, 0.3, 0.6, 0.9)]
    assert found == sorted(found) and len(set(found)) == 4, found


def trial(overlap: float, **more: Any) -> Hardness:
    _, split, net = learned(overlap, 0, 600)
    before = copy.deepcopy(net)
    settings = Settings(lr=0.2, batch_size=24, warmup=0.0, schedule="constant")
    found = measure_hardness(
        net,
        ImageTask(),
        split,
        Recipe(UNLEARN, "sum", Paired(), All()),
        settings,
        blend=HAMU(amount=0.5, stop=True),
        **more,
    )
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before.parameters())), "on a copy"
    return found


def test_the_report_ranks_worlds_and_the_first_step_does_not() -> None:
    easy, hard = trial(0.3), trial(0.9)
    assert easy.steps == hard.steps == 20 and easy.cosine + 0.1 < hard.cosine and easy.damaged <= hard.damaged
    assert easy.advice in ("go", "careful") and easy.forget > 0
    for overlap in (0.3, 0.9):
        watched = Watched(HAMU(amount=0.5))
        unlearn(overlap, 0, watched, until=-1.0, lr=0.2, steps=1, sampling=Everything())
        assert watched.notes[0]["cosine"] < 0, (
            "at a minimum of the joint loss both oppose each other whatever is shared"
        )


@pytest.mark.parametrize(
    ("stop", "retain", "advice"),
    [(0.6, 1.0, "stop"), (0.2, -1.0, "careful"), (0.0, 0.1, "careful"), (0.0, -0.1, "go")],
)
def test_advice(stop: float, retain: float, advice: str) -> None:
    assert Hardness(20, 0.1, 0.0, stop, 1.0, retain).advice == advice


# --- the engine ---


def test_passes_a_step() -> None:
    assert passes(HAMU()) == passes(HAMU("u", granularity="global")) == (2, 2)


@pytest.mark.parametrize("blend", [HAMU(), HAMU(granularity="layer")], ids=lambda b: b.granularity)
def test_a_stopped_run_goes_on_exactly(blend: HAMU, tmp_path: Path) -> None:
    assert goes_on_exactly(blend, tmp_path, lr=0.1)


def test_a_recipe_of_one_role_is_plain_descent() -> None:
    step = Fixed({"forget": [vector(3, 4)]}, lr=0.1)
    (update,), _ = HAMU().apply(step, HAMU().init(None))  # type: ignore[arg-type]
    assert update.tolist() == pytest.approx([-0.06, -0.08])


def test_a_retain_loss_at_its_minimum_does_not_hold_the_weights_for_ever() -> None:
    """A loss that holds the original's states has no gradient there: |x| = 0 would be the radius of every
    step."""
    (update,), _, notes = blend_step([vector(0, 0)], [vector(0.3, 0.4)], HAMU(), 0.1)
    assert (
        update.tolist() == pytest.approx([0.03, 0.04])
        and notes["forget"] == pytest.approx(0.025)
        and notes["retain"] == 0
    )
    update, _, _ = blend_step([vector(0, 0), vector(1, 0)], [vector(0.3, 0.4), vector(0, 1)], HAMU(), 0.1)
    assert not update[0].any() and update[1].any(), "a block alone stays"


def test_a_language_model_in_single_precision(tiny_llama: Any, tokenizer: Any) -> None:
    """Every tensor moves by lr · |g_r|, and what is predicted comes about."""
    rows = [{"question": f"Who is {i}?", "answer": "the long river " * (1 + i % 3)} for i in range(4)]
    split = make_split(
        {
            "forget": rows,
            "retain": [{"question": f"Where is {i}?", "answer": "near the harbour"} for i in range(4)],
        }
    )

    @dataclasses.dataclass(frozen=True)
    class Checked(HAMU):
        seen: list[Any] = dataclasses.field(default_factory=list)

        def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
            update, state = super().apply(step, state)
            gradient = step.gradients("retain")["retain"]
            for delta, g in zip(update, self.clip(step, gradient)[0]):
                assert float(delta.norm()) == pytest.approx(step.lr * float(g.norm()), rel=1e-3)
            before, after = step.losses(), step.losses(displacement=update)
            self.seen.extend(
                (after[role] - before[role], step.notes[f"blend/{role}"]) for role in ("forget", "retain")
            )
            return update, state

    blend = Checked()
    recipe = dataclasses.replace(hamu(), blend=blend)
    loop.run_recipe(
        copy.deepcopy(tiny_llama),
        LanguageTask(tokenizer),
        split,
        recipe,
        Settings(lr=1e-2, warmup=0.0, batch_size=4, max_steps=3),
        quiet=True,
    )
    assert all(-made == pytest.approx(told, rel=0.2, abs=2e-5) for made, told in blend.seen[::2]), (
        "the forget loss is ascended"
    )
    assert all(made == pytest.approx(told, rel=0.2, abs=2e-5) for made, told in blend.seen[1::2])


def test_the_closed_form_has_no_infinities() -> None:
    table = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, -1], [1e-300, 1e-300, 0]], dtype=torch.float64
    )
    for constraint, amount in (("relative", 0.0), ("relative", 0.9), ("absolute", 0.0), ("absolute", 9.0)):
        move: BlockSolution = solve_blocks(table, constraint, amount)  # type: ignore[arg-type]
        assert all(torch.isfinite(value).all() for value in dataclasses.asdict(move).values())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown variant 'Q'.*Known: q, u"):
        HAMU("Q")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"amount=1\.0"):
        HAMU(amount=1.0)
    assert HAMU(constraint="absolute", amount=1.0).amount == 1.0


def test_the_method_picks_its_parts() -> None:
    recipe = hamu("npo", amount=0.5, stop=True)
    assert [(t.role, t.loss) for t in recipe.terms] == [("forget", "npo"), ("retain", "nll")]
    assert recipe.blend["amount"] == 0.5 and recipe.blend["stop"] and recipe.blend["granularity"] == "tensor"
