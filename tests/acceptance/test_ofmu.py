"""OFMU against hand values, double backward, and on the micro-world at matched forgetting."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from micro import UNLEARN, accuracy, learned, unlearn
from torch import Tensor

from alone import Alone
from unremember.data.split import Split, make_split
from unremember.engine import loop
from unremember.engine.blends import PlainBlend
from unremember.engine.blends.ofmu import OFMU, forget_ascent_gradient, retain_gradient
from unremember.engine.recipe import Recipe
from unremember.engine.seams import State, Term
from unremember.engine.settings import Settings
from unremember.errors import ConfigError
from unremember.registry import methods
from unremember.tasks.image import ImageTask
from unremember.tasks.language import LanguageTask
from unremember.worlds.micro import micro_net, micro_world

SIMILARITIES = ["cos", "cos2", "relu"]
EXACT = {"rho": 0.0, "clip": float("inf")}
FRESH = (0.0, 0.0)

Weights = list[Tensor]


class Closed(Alone):
    """A measurement of losses in closed form; ``after`` replaces the losses when a further batch is drawn."""

    def __init__(
        self,
        parameters: Weights,
        losses: Mapping[str, Callable[[Weights], Tensor]],
        lr: float = 1.0,
        after: Mapping[str, Callable[[Weights], Tensor]] | None = None,
    ) -> None:
        self.parameters, self.losses, self.roles, self.lr, self.after = (
            parameters,
            losses,
            tuple(losses),
            lr,
            after or losses,
        )
        self.notes: dict[str, float] = {}

    def displaced_weights(self, move: Weights | None) -> Weights:
        moves = move or [torch.zeros_like(p) for p in self.parameters]
        return [(p.detach() + m).requires_grad_() for p, m in zip(self.parameters, moves)]

    def gradients(self, *roles: str, displacement: Weights | None = None) -> dict[str, Weights]:
        points = {role: self.displaced_weights(displacement) for role in roles}
        return {role: list(torch.autograd.grad(self.losses[role](p), p)) for role, p in points.items()}

    def draw(self) -> None:
        self.losses = self.after

    def note(self, **figures: float) -> None:
        self.notes |= figures


def quadratic(*x: float, lr: float = 1.0) -> Closed:
    """L_f = ½ x'Ax to be raised, L_r = ½ x'Bx."""
    a, b = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([2.0, 1.0], dtype=torch.float64)
    losses = {"forget": lambda p: -(a * p[0] ** 2).sum() / 2, "retain": lambda p: (b * p[0] ** 2).sum() / 2}
    return Closed([torch.tensor(x, dtype=torch.float64)], losses, lr)


def network(dtype: torch.dtype = torch.float64, lr: float = 1.0, seed: int = 0) -> Closed:
    """Cross-entropy of the micro-world's net as it is drawn: all forget facts, 24 retain facts, 24 others
    after a draw."""
    world, net = micro_world(0.7, seed), micro_net(seed)

    def loss(rows: Tensor, sign: float) -> Callable[[Weights], Tensor]:
        inputs, labels = world.inputs[rows].to(dtype), world.labels[rows]

        def value(p: Weights) -> Tensor:
            hidden = torch.tanh(torch.tanh(inputs @ p[0].T + p[1]) @ p[2].T + p[3])
            return sign * F.cross_entropy(hidden @ p[4].T + p[5], labels)

        return value

    forget, kept = world.forget.nonzero()[:, 0], (~world.forget).nonzero()[:, 0]
    losses = {"forget": loss(forget, -1), "retain": loss(kept[:24], 1)}
    parameters = [p.detach().to(dtype) for p in net.parameters()]
    return Closed(parameters, losses, lr, {**losses, "retain": loss(kept[24:48], 1)})


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def off(found: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """Relative distance."""
    return float((flat(found).double() - flat(true).double()).norm() / flat(true).double().norm())


def doubly(
    step: Closed, displacement: Weights | None, beta: float, similarity: str
) -> tuple[Weights, Weights]:
    """(∇Φ, H_Φ ∇Φ) by double and triple backward."""
    p = step.displaced_weights(displacement)
    raised = -step.losses["forget"](p)
    gradients = [
        torch.autograd.grad(loss, p, create_graph=True) for loss in (raised, step.losses["retain"](p))
    ]
    cosine = F.cosine_similarity(
        *(torch.cat([g.flatten() for g in gradient]) for gradient in gradients), dim=0
    )
    alike = {"cos": cosine, "cos2": cosine**2, "relu": cosine.clamp(min=0)}[similarity]
    slope = torch.autograd.grad(raised - beta * alike, p, create_graph=True)
    bent = torch.autograd.grad(sum((s.detach() * s).sum() for s in slope), p)
    return [s.detach() for s in slope], list(bent)


# --- 1: the gradient of Φ, exactly ---


def test_hand_values() -> None:
    slope, cosine, peaks = OFMU().inner_gradient(quadratic(1, 2), None, FRESH)
    assert slope[0].tolist() == pytest.approx([1.0136190, 3.9931905], abs=1e-7) and cosine == pytest.approx(
        0.8574929, abs=1e-7
    )
    assert peaks == pytest.approx((17**0.5, 8**0.5))
    slope, cosine, _ = OFMU().inner_gradient(quadratic(1, 1), None, FRESH)
    assert slope[0].tolist() == pytest.approx([1, 2], abs=1e-9) and cosine == pytest.approx(0.8), (
        "both Hessians: their turns cancel"
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    "step", [quadratic(1, 2), quadratic(-1, 3), network()], ids=["quadratic", "other", "net"]
)
def test_the_slope_is_that_of_double_backward(step: Closed, similarity: str) -> None:
    blend = OFMU(beta=0.7, similarity=similarity, fd_scale=1e-5)
    displacement = [0.01 * torch.ones_like(p) for p in step.parameters]
    for move in (None, displacement):
        assert off(blend.inner_gradient(step, move, FRESH)[0], doubly(step, move, 0.7, similarity)[0]) < 1e-6


def test_the_positive_part_stops_at_orthogonality() -> None:
    """Where the gradients oppose, the cosine still turns ∇Φ, its positive part does not, and β = 0 never
    does."""
    step = quadratic(1, 2)
    step.losses = {**step.losses, "retain": lambda p: -quadratic(1, 2).losses["retain"](p)}
    plain = forget_ascent_gradient(step, None)
    assert (
        off(OFMU(similarity="relu").inner_gradient(step, None, FRESH)[0], plain)
        == 0
        == off(OFMU(beta=0).inner_gradient(step, None, FRESH)[0], plain)
    )
    assert off(OFMU().inner_gradient(step, None, FRESH)[0], plain) > 1e-3


@pytest.mark.parametrize(
    "blend", [OFMU(inner_steps=0, rho=0), OFMU(inner_steps=0, **EXACT)], ids=["clipped", "whole"]
)
def test_no_inner_step_and_no_penalty_is_retain_descent(blend: OFMU) -> None:
    step = network(lr=0.02)
    change, state = blend.apply(step, blend.init(context()))
    gradient = flat(torch.autograd.grad(step.after["retain"](p := step.displaced_weights(None)), p))
    scale = min(1.0, blend.clip / float(gradient.norm()))
    assert torch.allclose(flat(change), -0.1 * scale * gradient, atol=1e-12) and state["round"] == 1
    assert off(change, [-g for g in retain_gradient(network(), None)]) > 0.1, (
        "the outer step has a batch of its own"
    )


def test_one_inner_step_alone_alternates() -> None:
    """Up by lr along ∇L_f, down by outer_rate · lr along ∇L_r there; each at most 1 long."""
    blend, step = OFMU(inner_steps=1, beta=0, rho=0, outer_rate=3), quadratic(1, 2, lr=0.1)
    change, _ = blend.apply(step, blend.init(context()))
    up = torch.tensor([1.0, 4.0], dtype=torch.float64)
    x = step.parameters[0] + 0.1 * up / up.norm()
    down = torch.tensor([2.0, 1.0], dtype=torch.float64) * x
    assert torch.allclose(step.parameters[0] + change[0], x - 0.3 * down / down.norm(), atol=1e-12)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_outer_step_descends_the_penalised_loss(similarity: str) -> None:
    """∇L_r of the fresh batch + 2ρ H_Φ ∇Φ of the round's pair; with no inner step ∇Φ is read where it is
    used."""
    blend = OFMU(
        inner_steps=0, rho=0.5, similarity=similarity, fd_scale=1e-5, clip=float("inf"), outer_rate=1.0
    )
    step = network()
    _, bent = doubly(step, None, blend.beta, similarity)
    change, _ = blend.apply(step, blend.init(context()))
    retain = retain_gradient(step, None)
    assert off([-c - g for c, g in zip(change, retain)], bent) < 1e-4 and float(flat(bent).norm()) > 1e-3
    assert step.notes["penalty"] == pytest.approx(float(flat(bent).norm() / flat(retain).norm()), rel=1e-4)


def test_the_penalty_takes_the_inner_loops_last_reading() -> None:
    """On quadratics without a similarity H_Φ is A: the penalty's gradient is 2ρ A ∇L_f of one inner step
    before."""
    blend, step = OFMU(inner_steps=2, beta=0, rho=0.1, clip=float("inf")), quadratic(1, 2, lr=0.1)
    change, _ = blend.apply(step, blend.init(context()))
    a, b = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([2.0, 1.0], dtype=torch.float64)
    once = step.parameters[0] * (1 + 0.1 * a)
    twice = once * (1 + 0.1 * a)
    assert torch.allclose(
        step.parameters[0] + change[0], twice - 0.5 * (b * twice + 0.2 * a * a * once), atol=1e-9
    )


def test_rho_grows_to_its_ceiling() -> None:
    blend, step = OFMU(rho=0.001, rho_growth=2.0, rho_max=0.003), quadratic(1, 2, lr=1e-3)
    state, seen = blend.init(context()), []
    for _ in range(4):
        _, state = blend.apply(step, state)
        seen.append(step.notes["rho"])
    assert seen == pytest.approx([0.001, 0.002, 0.003, 0.003])


def test_a_gradient_that_vanished_has_no_direction() -> None:
    for point, peaks in (((1, 2), (1e12, 1.0)), ((1, 2), (1.0, 1e12)), ((0, 0), FRESH)):
        step = quadratic(*point)
        slope, cosine, _ = OFMU(beta=5).inner_gradient(step, None, peaks)
        assert torch.equal(slope[0], forget_ascent_gradient(step, None)[0]) and cosine == 0


# --- 2: how finely to differ ---


def turned(step: Closed, fd_scale: float) -> Weights:
    """∇Sim, as the blend has it."""
    slope, *_ = OFMU(beta=1.0, fd_scale=fd_scale).inner_gradient(step, None, FRESH)
    return [g - s for g, s in zip(forget_ascent_gradient(step, None), slope)]


def test_the_ladder_of_displacements() -> None:
    """Central differences err by the square of the displacement until rounding takes over: in bfloat16 at
    once."""
    true = [
        g - s for g, s in zip(forget_ascent_gradient(network(), None), doubly(network(), None, 1.0, "cos")[0])
    ]

    def error(dtype: torch.dtype, scale: float) -> float:
        return off(turned(network(dtype), scale), true)

    assert error(torch.float64, 1e-2) / error(torch.float64, 1e-3) == pytest.approx(100, rel=0.1)
    assert error(torch.float32, 1e-3) < 2e-4 < error(torch.float32, 1e-5)
    assert error(torch.bfloat16, 1e-2) < 0.15 and error(torch.bfloat16, 1e-3) > 0.3


def context(dtype: torch.dtype = torch.float32) -> Any:
    return SimpleNamespace(model=torch.nn.Linear(2, 2).to(dtype))


def test_rounded_weights_are_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OFMU().init(context())
        OFMU(fd_scale=1e-2).init(context(torch.bfloat16))
    with pytest.warns(UserWarning, match="16-bit weights do not resolve fd_scale=0.001"):
        OFMU().init(context(torch.bfloat16))


@pytest.mark.parametrize(
    "wrong", [{"similarity": "cosine"}, {"outer_start": "outer"}, {"fd_scale": 0.0}, {"clip": 0.0}], ids=str
)
def test_what_it_cannot_take(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OFMU(**wrong)


# --- 3, 4, 5: the micro-world ---


@dataclasses.dataclass(frozen=True)
class Signed(PlainBlend):
    """The mean of the role gradients, each at most 1 long, at ten times the rate: gradient difference, or
    ascent without ``kept``."""

    raw: ClassVar[bool] = True
    kept: bool = True

    def apply(self, step: Any, state: State) -> tuple[Weights, State]:
        roles = ("forget", "retain")[: 1 + self.kept]
        found = [(g, min(1.0, 1 / float(flat(g).norm()))) for g in step.gradients(*roles).values()]
        return [
            -10 * step.lr / len(roles) * sum(s * g[i] for g, s in found) for i in range(len(step.parameters))
        ], state


def run(blend: Any, rounds: int = 150, overlap: float = 0.7, seed: int = 1) -> tuple[int, float, float]:
    """(rounds, forget, retain accuracy) when forget accuracy has come down to 0.30, or at the end."""
    net, world, taken = unlearn(overlap, seed, blend, until=0.30, lr=0.02, steps=rounds)
    return taken, accuracy(net, world, forget=True), accuracy(net, world, forget=False)


@dataclasses.dataclass(frozen=True)
class Noted(OFMU):
    """OFMU that shows its measurement after each round's readings."""

    each: Any = None

    def apply(self, step: Any, state: State) -> tuple[Weights, State]:
        out = super().apply(step, state)
        self.each(step)
        return out


ROUNDS = 60


def test_it_forgets_from_the_inner_point_and_keeps_more() -> None:
    """Than ascent, when forget accuracy has come down to 0.30."""
    rounds, forget, kept = run(OFMU(), ROUNDS)
    assert forget <= 0.30 and rounds <= ROUNDS and kept >= run(Signed(kept=False))[2] + 0.15


def test_from_the_anchor_it_forgets_nothing() -> None:
    plain = OFMU(rho=0, beta=0)
    assert run(plain, ROUNDS)[1] <= 0.30
    assert run(dataclasses.replace(plain, outer_start="anchor"), ROUNDS)[:2] == (ROUNDS, 1.0)


def test_too_much_penalty_undoes_the_forgetting() -> None:
    noted: list[dict[str, float]] = []
    with pytest.warns(UserWarning, match="outweighs the retain gradient"):
        rounds, forget, kept = run(
            Noted(beta=0, rho=0.1, rho_growth=1.02, each=lambda step: noted.append(step.notes)), ROUNDS
        )
    assert rounds == ROUNDS and forget == 1.0 == kept
    assert (
        noted[-1]["blend/rho"] == pytest.approx(0.1 * 1.02 ** (ROUNDS - 1))
        and max(notes["blend/penalty"] for notes in noted) > 1
    )
    assert all(0 < notes["blend/phi"] < 10 for notes in noted)


@pytest.mark.full
def test_the_anchor_and_the_penalty_at_full_length() -> None:
    assert run(OFMU(outer_start="anchor"))[1] == 1.0
    with pytest.warns(UserWarning, match="outweighs"):
        assert run(OFMU(rho=0.1, rho_growth=1.02)) == (150, 1.0, 1.0)
    plain, grown = (run(blend) for blend in (OFMU(rho=0), OFMU(rho=0.01, rho_growth=1.02)))
    assert plain[1] <= 0.30 and grown[0] > 1.3 * plain[0] and grown[2] < plain[2]


@pytest.mark.full
def test_it_keeps_more_whatever_the_overlap() -> None:
    """Three overlaps, three seeds: the table of docs/methods/ofmu.md."""
    blends = {
        "ofmu": OFMU(),
        "rho=0": OFMU(rho=0),
        "rho=0, beta=0": OFMU(rho=0, beta=0),
        "difference": Signed(),
        "ascent": Signed(kept=False),
    }
    found = {
        name: [[run(blend, overlap=o, seed=s) for s in range(3)] for o in (0.3, 0.7, 0.9)]
        for name, blend in blends.items()
    }
    kept = {name: torch.tensor(figures, dtype=torch.float64)[..., 2] for name, figures in found.items()}
    for name, figures in kept.items():
        print(name, [round(value, 3) for value in figures.mean(1).tolist()], round(figures.mean().item(), 3))
    for a, b in (("ofmu", "difference"), ("rho=0", "rho=0, beta=0")):
        gain = (kept[a] - kept[b]).flatten()
        print(f"{a} over {b}: {gain.mean():.3f} ± {1.96 * gain.std() / len(gain) ** 0.5:.3f}")
    assert (kept["ofmu"].mean(1) >= kept["ascent"].mean(1) + 0.15).all()
    assert kept["ofmu"].mean() >= kept["difference"].mean() - 0.01


# --- 6: exactness of a run ---


def test_displaced_weights_come_back_bit_for_bit() -> None:
    _, _, net = learned(0.7, 1, 600)
    start = [p.detach().clone() for p in net.parameters()]
    seen: list[bool] = []
    run(
        Noted(each=lambda step: seen.append(all(torch.equal(p, q) for p, q in zip(step.parameters, start)))),
        rounds=1,
    )
    assert seen == [True]


class Killed(Exception):
    """The process died."""


def test_a_run_killed_inside_a_round_goes_on_exactly(tmp_path: Path) -> None:
    """In the third inner step of the third round: the round is done again from its beginning."""
    _, split, net = learned(0.7, 1, 600)
    settings = Settings(
        max_steps=4, batch_size=24, lr=0.02, schedule="constant", warmup=0, checkpoint_seconds=0
    )

    def go(net: Any, folder: Path) -> Any:
        return loop.run_recipe(net, ImageTask(), split, Recipe(UNLEARN, OFMU()), settings, folder, quiet=True)

    whole = go(copy.deepcopy(net), tmp_path / "whole")
    passes = []

    def die(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 2 * 43 + 2 * 6 + 3:
            raise Killed

    doomed = copy.deepcopy(net)
    doomed.register_forward_hook(die)
    with pytest.raises(Killed):
        go(doomed, tmp_path / "cut")
    again = go(copy.deepcopy(net), tmp_path / "cut")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters()))
    assert (tmp_path / "cut" / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()


# --- cost, and the method ---


@pytest.mark.parametrize(
    ("blend", "passes"),
    [
        (OFMU(), 43),
        (OFMU(rho=0), 31),
        (OFMU(rho=0, beta=0), 6),
        (OFMU(beta=0), 8),
        (OFMU(inner_steps=10, rho=0), 61),
    ],
    ids=str,
)
def test_a_round_costs_what_it_says(blend: OFMU, passes: int) -> None:
    _, split, net = learned(0.7, 1, 600)
    net, counts = copy.deepcopy(net), [0, 0]
    net.register_forward_hook(lambda *_: counts.__setitem__(0, counts[0] + 1))
    net[0].weight.register_hook(lambda _: counts.__setitem__(1, counts[1] + 1))
    loop.run_recipe(
        net,
        ImageTask(),
        split,
        Recipe(UNLEARN, blend),
        Settings(max_steps=2, batch_size=24, lr=0.02),
        quiet=True,
    )
    assert counts == [2 * passes, 2 * passes]


@pytest.fixture(scope="module")
def split() -> Split:
    def rows(word: str, n: int) -> list[dict[str, str]]:
        return [{"question": f"{word} is {i}?", "answer": "the long river " * (1 + i % 3)} for i in range(n)]

    return make_split({"forget": rows("Who", 4), "retain": rows("Where", 30)})


@pytest.mark.parametrize("base", ["npo", "ascent"])
def test_the_method_forgets_on_a_language_model(
    base: str, tiny_llama: Any, tokenizer: Any, split: Split, tmp_path: Path
) -> None:
    model, settings = (
        copy.deepcopy(tiny_llama),
        Settings(max_steps=4, batch_size=4, lr=0.02, schedule="constant", warmup=0),
    )
    loop.run_recipe(
        model,
        LanguageTask(tokenizer),
        split,
        methods.make({"name": "ofmu", "base": base, "rho": 0.0}),
        settings,
        tmp_path,
        quiet=True,
    )
    figures = [
        json.loads(line)[f"forget/{base}"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert all(later < sooner for sooner, later in pairwise(figures)), "the whole forget set is the batch"


def test_a_further_batch_has_its_reference(tiny_llama: Any, tokenizer: Any, split: Split) -> None:
    """What the retain term reads of the original is there for rows that only the outer step draws."""
    held = methods.make("rmu").terms[1]
    blend = OFMU(inner_steps=1, beta=0, rho=0)
    model = copy.deepcopy(tiny_llama)
    recipe = Recipe((Term("forget", "ascent"), held), blend)
    loop.run_recipe(
        model,
        LanguageTask(tokenizer),
        split,
        recipe,
        Settings(max_steps=1, batch_size=2, lr=0.02),
        quiet=True,
    )
    assert not torch.equal(model.lm_head.weight, tiny_llama.lm_head.weight)
