"""GU: by hand, against naive solvers, and on the micro-world with Adam's momentum on."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from micro import Descent, Fixed, Watched, accuracy, goes_on_exactly, passes, unlearn
from torch import Tensor

from unremember.data.split import make_split
from unremember.engine import loop
from unremember.engine.blends import gu as blend_file
from unremember.engine.blends.gu import (
    GU,
    metric_products,
    orthonormal_basis,
    uncovered_share,
    weighted_columns,
)
from unremember.engine.selections.all import All
from unremember.engine.selections.lora import LoRA
from unremember.engine.settings import Settings
from unremember.errors import ConfigError
from unremember.methods.language.gu import gu
from unremember.tasks.language import LanguageTask

DENOMINATORS, RETAIN, FORGET = (
    torch.tensor(v, dtype=torch.float64) for v in ([1.0, 4.0], [1.0, 1.0], [0.0, 2.0])
)


@dataclasses.dataclass(frozen=True)
class Untouched(GU):
    """The same run with nothing taken out."""

    def protected_component(self, step: Any, change: Any, inverse: Any, state: Any) -> Any:
        return [], state


def corrected(blend: GU, change: Tensor, columns: Sequence[Tensor], denominators: Tensor) -> Tensor:
    """What ``blend`` makes of a realised change with these protected gradients."""
    state = {"steps": 1, "projected": 0, **{f"retain{i}": column for i, column in enumerate(columns)}}
    step = Fixed({"forget": [change], "retain": [change]}, denominators=[denominators])
    return dataclasses.replace(blend, history=len(columns) - 1).correct([change], step, state)[0][0]  # type: ignore[arg-type]


def case(seed: int, size: int = 200, count: int = 4) -> tuple[Tensor, list[Tensor], Tensor]:
    """A change, protected gradients and Adam denominators, at random."""
    rng = torch.Generator().manual_seed(seed)
    change, *columns = torch.randn(count + 1, size, generator=rng, dtype=torch.float64)
    return change, columns, torch.randn(size, generator=rng, dtype=torch.float64).exp()


# --- 1, by hand ---


def test_by_hand_at_the_change() -> None:
    made = corrected(GU("null"), -FORGET / DENOMINATORS, [RETAIN], DENOMINATORS)
    assert (
        torch.allclose(made, torch.tensor([0.4, -0.4], dtype=torch.float64), atol=1e-15)
        and abs(float(RETAIN @ made)) < 1e-15
    )


@pytest.mark.parametrize(
    ("metric", "wanted", "harm"), [("adam", [-0.4, 1.6], 0.0), ("euclid", [-1.0, 1.0], -0.75)]
)
def test_by_hand_at_the_gradient(metric: Any, wanted: list[float], harm: float) -> None:
    """Without the optimiser's metric the projected gradient is not a projected step."""
    step = Fixed({"forget": [FORGET], "retain": [RETAIN]}, denominators=[DENOMINATORS])
    blend = GU("null", "gradient", metric, alpha=0.0, history=0)
    (made,), state = blend.apply(step, blend.init(None))  # type: ignore[arg-type]
    assert made.tolist() == pytest.approx(wanted, abs=1e-12) and float(
        RETAIN @ (made / DENOMINATORS)
    ) == pytest.approx(harm, abs=1e-12)
    assert state["projected"] == state["steps"] == 1 and step.notes["projected"]


def test_the_retain_part_of_a_gradient_is_kept_whole() -> None:
    step = Fixed({"forget": [FORGET], "retain": [RETAIN]}, denominators=[DENOMINATORS])
    (made,), _ = GU("null", "gradient", alpha=2.0).apply(step, GU().init(None))  # type: ignore[arg-type]
    assert made.tolist() == pytest.approx([-0.4 + 2, 1.6 + 2])


@pytest.mark.parametrize(
    ("forget", "cap", "wanted"),
    [
        ([0.0, 2.0], 9.0, [0.0, 2.0]),
        ([0.0, 2.0], 0.0, [-0.4, 1.6]),
        ([0.0, 2.0], 0.25, [-0.2, 1.8]),
        ([0.0, -2.0], 9.0, [0.4, -1.6]),
    ],
)
def test_the_paper_keeps_what_agrees_up_to_its_cap(
    forget: list[float], cap: float, wanted: list[float]
) -> None:
    """|z_perp| = √.8 and the agreeing part has length .4·√1.25 = √.2: a cap of ¼ keeps half of it."""
    step = Fixed(
        {"forget": [torch.tensor(forget, dtype=torch.float64)], "retain": [RETAIN]},
        denominators=[DENOMINATORS],
    )
    (made,), _ = GU("paper", "gradient", alpha=0.0, kappa_cap=cap).apply(step, GU().init(None))  # type: ignore[arg-type]
    assert made.tolist() == pytest.approx(wanted, abs=1e-12)


# --- 2, algebra ---


def test_the_null_rule_is_the_projection_in_the_metric() -> None:
    left = []
    for seed in range(300):
        change, columns, h = case(seed)
        made = corrected(GU("null"), change, columns, h)
        bound = torch.stack([c.norm() for c in columns]) * made.norm()
        assert float(((torch.stack(columns) @ made) / bound).abs().max()) < 1e-12
        naive = (
            change
            - torch.linalg.qr(torch.stack(columns, 1))[0]
            @ (torch.linalg.qr(torch.stack(columns, 1))[0].T @ change)
        ) / h
        left.append(float((torch.stack(columns) @ naive).abs().max() / (columns[0].norm() * naive.norm())))
        if seed < 20:
            other = case(seed + 1000)[0]
            again = corrected(GU("null"), made, columns, h)
            assert torch.allclose(again, made, atol=1e-12), "idempotent"
            adjoint = float((h * other) @ made - (h * change) @ corrected(GU("null"), other, columns, h))
            assert abs(adjoint) < 1e-10, "self-adjoint"
    assert 0.05 < mean(left) < 0.2, "Euclid, then Adam, leaves about a tenth"


def test_no_feasible_direction_forgets_faster() -> None:
    change, columns, h = case(3)
    gradient = -h * change
    made = corrected(GU("null"), change, columns, h)
    best = float(-gradient @ made / (h * made * made).sum().sqrt())
    for other in torch.randn(1000, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64):
        free = corrected(GU("null"), other, columns, h)
        assert float(-gradient @ free / (h * free * free).sum().sqrt()) < best


@pytest.mark.parametrize("rule", ["null", "cone"])
def test_nothing_to_protect_changes_no_bit(rule: Any) -> None:
    change, columns, h = case(0)
    assert torch.equal(corrected(GU(rule), change, [torch.zeros_like(change)], h), change)
    alone = Fixed({"forget": [change]}, denominators=[h])
    blend = GU(rule)
    (gradient,), state = blend.apply(alone, blend.init(None))  # type: ignore[arg-type]
    assert torch.equal(gradient, change) and torch.equal(blend.correct([change], alone, state)[0][0], change)  # type: ignore[arg-type]
    assert not torch.equal(corrected(GU("null"), change, columns[:1], h), change)


def test_weights_that_never_had_a_gradient_repair_nothing() -> None:
    """Their denominator is Adam's ε: the cheapest there is, so that a naive metric would move them alone."""
    change, h = (
        torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64),
        torch.tensor([1.0, 2.0, 1e-8], dtype=torch.float64),
    )
    made = corrected(GU("cone"), change, [torch.ones(3, dtype=torch.float64)], h)
    assert (
        made[2] == 0
        and float(made.sum()) == pytest.approx(0, abs=1e-12)
        and made.tolist()[0] == pytest.approx(1 - 4 / 3)
    )


# --- 3, the cone ---


def nearest(change: Tensor, columns: Sequence[Tensor], h: Tensor) -> Tensor:
    """The nearest change with no harm, by trying every set of active constraints."""
    found = []
    for active in itertools.chain.from_iterable(
        itertools.combinations(range(len(columns)), n) for n in range(len(columns) + 1)
    ):
        made = change
        if active:
            g = torch.stack([columns[i] for i in active], 1)
            made = (
                change
                - (g @ torch.linalg.lstsq(g.T @ (g / h[:, None]), (g.T @ change)[:, None]).solution).squeeze(
                    1
                )
                / h
            )
        if (torch.stack(columns) @ made <= 1e-10).all():
            found.append((float((h * (made - change) ** 2).sum()), made))
    return min(found, key=lambda pair: pair[0])[1]


@pytest.mark.parametrize("seed", range(8))
def test_the_cone_is_the_nearest_harmless_change(seed: int) -> None:
    change, columns, h = case(seed, size=12, count=5)
    g = torch.stack(columns, 1)
    made = corrected(GU(), change, columns, h)
    assert torch.allclose(made, nearest(change, columns, h), atol=1e-10)
    assert float((g.T @ made / (g.norm(dim=0) * made.norm())).max()) < 1e-12, "feasible"
    push = torch.linalg.lstsq(g, (h * (change - made))[:, None]).solution.squeeze(1)
    assert float(push.min()) > -1e-12 and torch.allclose(g @ push, h * (change - made), atol=1e-10), "λ ≥ 0"
    rng = torch.Generator().manual_seed(seed)
    points = made + torch.randn(20_000, 12, generator=rng, dtype=torch.float64) * torch.rand(
        20_000, 1, generator=rng, dtype=torch.float64
    )
    points = points[(points @ g <= 0).all(1)]
    far = (h * (points - change) ** 2).sum(1)
    assert len(points) > 50 and float(far.min()) >= float((h * (made - change) ** 2).sum()) - 1e-12


def test_what_helps_is_left_and_what_is_said_twice_counts_once() -> None:
    change, columns, h = case(5)
    helpful = [-change + 0.1 * column for column in columns]
    assert torch.equal(corrected(GU(), change, helpful, h), change)
    once, twice = (
        corrected(GU(), change, given, h) for given in (columns, [*columns, columns[0], 3 * columns[1]])
    )
    assert torch.allclose(once, twice, atol=1e-9) and not torch.equal(once, change)


def test_opposing_constraints_leave_their_common_edge() -> None:
    change, columns, h = case(6)
    made = corrected(GU(), change, [columns[0], -columns[0]], h)
    assert torch.allclose(made, corrected(GU("null"), change, columns[:1], h), atol=1e-9)


# --- 4 and 5, Adam with momentum on the micro-world ---

ADAM = {
    "plain": Untouched(alpha=0.0),
    "gradient": GU("null", "gradient", alpha=0.0),
    "null": GU("null", alpha=0.0),
    "cone": GU(alpha=0.0),
}


@pytest.fixture(scope="module")
def adam() -> dict[tuple[float, str], list[tuple[float, list[float]]]]:
    """By overlap and blend: (retain accuracy at matched forgetting, harm of every step) of two seeds."""
    torch.set_num_threads(1)
    found: dict[tuple[float, str], list[tuple[float, list[float]]]] = {}
    for overlap, (name, blend), seed in itertools.product((0.3, 0.9), ADAM.items(), (0, 1)):
        watched = Watched(blend)
        net, world, steps = unlearn(overlap, seed, watched, until=0.3, lr=1e-3, steps=200, clip=0.0)
        assert steps < 200, "the forgetting is matched"
        found.setdefault((overlap, name), []).append((accuracy(net, world, forget=False), watched.harm))
    return found


@pytest.mark.parametrize("overlap", [0.3, 0.9])
def test_no_realised_change_harms_the_retain_batch(
    overlap: float, adam: dict[tuple[float, str], list[tuple[float, list[float]]]]
) -> None:
    share = {name: [mean(h > 1e-6 for h in harm) for _, harm in adam[overlap, name]] for name in ADAM}
    assert max(*share["null"], *share["cone"]) == 0
    assert min(*share["plain"], *share["gradient"]) > 0.8, "momentum undoes a projected gradient"


@pytest.mark.parametrize("overlap", [0.3, 0.9])
def test_more_is_retained_at_matched_forgetting(
    overlap: float, adam: dict[tuple[float, str], list[tuple[float, list[float]]]]
) -> None:
    kept = {name: mean(accuracy for accuracy, _ in adam[overlap, name]) for name in ADAM}
    for name in ("null", "cone"):
        assert kept[name] >= kept["plain"] + 0.05 and kept[name] >= kept["gradient"] - 0.005, kept


# --- 6, rank ---


def kept(overlap: float, blend: Any, seeds: Sequence[int]) -> float:
    """Mean retain accuracy of gradient descent at 0.05, clipped to 1, where a quarter of the forget facts
    is left."""
    found = []
    for seed in seeds:
        net, world, steps = unlearn(overlap, seed, Descent(blend), until=0.25, lr=0.05)
        assert steps < 400
        found.append(accuracy(net, world, forget=False))
    return mean(found)


@pytest.mark.parametrize(
    ("overlap", "seeds"),
    [
        (0.9, (0, 1)),
        pytest.param(0.3, (0, 1, 2), marks=pytest.mark.full),
        pytest.param(0.9, (0, 1, 2), marks=pytest.mark.full),
    ],
)
def test_the_history_is_what_protects(overlap: float, seeds: Sequence[int]) -> None:
    plain = kept(overlap, Untouched(history=0, alpha=0.0), seeds)
    assert kept(overlap, GU(alpha=0.0), seeds) >= max(
        plain + 0.15, kept(overlap, GU(history=0, alpha=0.0), seeds) + 0.1
    )
    assert kept(overlap, GU(), seeds) >= kept(overlap, Untouched(history=0), seeds) + 0.04


# --- 7, coverage ---


def test_a_batch_is_covered_by_itself_and_hardly_by_others() -> None:
    _, columns, h = case(0, count=6)
    g = torch.stack(columns)
    gram = g / h @ g.T
    z = g / h.sqrt()
    q = torch.linalg.qr(z[1:].T)[0]
    assert (
        uncovered_share(gram)
        == pytest.approx(float((z[0] - q @ (q.T @ z[0])).norm() / z[0].norm()), abs=1e-12)
        and uncovered_share(gram) > 0.9
    )
    assert uncovered_share(gram[[1, 1, 2]][:, [1, 1, 2]]) < 1e-7 and orthonormal_basis(
        gram[[1, 1, 2]][:, [1, 1, 2]]
    ).shape == (3, 2)


def test_the_log_says_how_much_the_history_covers() -> None:
    watched = Watched(GU())
    unlearn(0.9, 0, watched, lr=1e-3, steps=12, clip=0.0)
    shares = [note["uncovered"] for note in watched.notes]
    assert shares[0] == 1.0 and 0.3 < mean(shares[9:]) < 0.99, "a fresh retain batch is partly new"


# --- finite steps, history, cost ---


@pytest.mark.parametrize("budget", [0.0, 1e-4])
def test_a_finite_step_stays_within_its_budget(budget: float) -> None:
    watched = Watched(GU(alpha=0.0, finite_step=budget), finite=True)
    unlearn(0.9, 0, watched, lr=1e-2, steps=12, clip=0.0)
    if budget:
        scales = {note["scale"] for note in watched.notes}
        assert (
            max(watched.rise) <= budget + 1e-12
            and len(scales) > 1
            and scales <= {0.0, *(2.0**-i for i in range(7))}
        )
    else:
        assert max(watched.rise) > 1e-2, "first order only"


def test_the_history_holds_the_last_gradients_first_in_first_out() -> None:
    blend = GU(history=2)
    state, given = blend.init(None), [case(seed)[0] for seed in range(4)]  # type: ignore[arg-type]
    for gradient in given:
        _, state = blend.apply(Fixed({"forget": [gradient], "retain": [gradient]}), state)  # type: ignore[arg-type]
    units = [g / g.norm() for g in given]
    assert (
        torch.equal(state["retain0"], units[3])
        and [state[f"retain{i}"].dtype for i in (1, 2)] == [torch.bfloat16] * 2
    )
    assert (
        all(torch.equal(state[f"retain{i}"], units[3 - i].bfloat16()) for i in (1, 2))
        and "retain3" not in state
    )


def test_passes_a_step() -> None:
    assert passes(GU()) == passes(GU("null", "gradient")) == (2, 2)
    forwards, backwards = passes(GU(finite_step=1e-4))
    assert 4 <= forwards <= 10 and backwards == 2


def test_a_stopped_run_goes_on_exactly(tmp_path: Path) -> None:
    assert goes_on_exactly(GU(history=3), tmp_path, lr=1e-3)


@pytest.mark.parametrize("selection", [All(), LoRA(rank=2)], ids=lambda s: type(s).__name__)
def test_a_language_model_in_single_precision(selection: Any, tiny_llama: Any, tokenizer: Any) -> None:
    """NPO + GU with Adam: no step harms its retain batch to first order, with all retain weight taken
    away."""
    rows = [{"question": f"Who is {i}?", "answer": "the long river " * (1 + i % 3)} for i in range(6)]
    split = make_split(
        {
            "forget": rows,
            "retain": [{"question": f"Where is {i}?", "answer": "near the harbour"} for i in range(7)],
        }
    )
    harm = {}
    for name, blend in (("plain", Untouched(alpha=0.0)), ("gu", GU(alpha=0.0))):
        recipe = dataclasses.replace(
            gu(base={"name": "npo", "beta": 0.2}), blend=(watched := Watched(blend)), selection=selection
        )
        loop.run_recipe(
            copy.deepcopy(tiny_llama),
            LanguageTask(tokenizer),
            split,
            recipe,
            Settings(lr=1e-3, batch_size=3, max_steps=8),
            quiet=True,
        )
        harm[name] = watched.harm
    assert max(harm["gu"]) < 1e-4 and mean(h > 1e-3 for h in harm["plain"]) > 0.6, harm


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown rule 'cones': did you mean 'cone'\? Known: cone, null, paper"
    ):
        GU(rule="cones")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="project='gradient'"):
        GU(rule="paper")
    with pytest.raises(ConfigError, match="history must be 0 or above"):
        GU(history=-1)


def test_the_method_picks_its_parts() -> None:
    recipe = gu("simnpo", "null", gamma=0.125, alpha=0.0, history=2)
    assert [(t.role, t.loss, t.weight) for t in recipe.terms] == [
        ("forget", "simnpo", 0.125),
        ("retain", "nll", 1.0),
    ]
    assert recipe.blend == {"name": "gu", "rule": "null", "project": "delta", "alpha": 0.0, "history": 2}


def test_products_over_chunks_are_those_of_whole_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights shorter and longer than a chunk, none a multiple of it, with gradients held in bfloat16."""
    monkeypatch.setattr(blend_file, "_CPU_CHUNK", 7)
    rng = torch.Generator().manual_seed(0)

    def drawn(shape: Any) -> Tensor:
        return torch.randn(shape, generator=rng)

    shapes = [(3,), (5, 4), (2, 11), (7,)]
    change, inverse = [drawn(shape) for shape in shapes], [drawn(shape).abs() for shape in shapes]
    columns = [[drawn(c.numel()), *(drawn(c.numel()).bfloat16() for _ in range(3))] for c in change]
    gram, along = metric_products(columns, change, inverse)
    whole = torch.cat([torch.stack([part.double() for part in parts], 1) for parts in columns])
    step, scale = (torch.cat([t.double().flatten() for t in tensors]) for tensors in (change, inverse))
    assert torch.allclose(gram, whole.T * scale @ whole, rtol=1e-5, atol=1e-5)
    assert torch.allclose(along, whole.T @ step, rtol=1e-5, atol=1e-5)
    mix = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
    taken = [weighted_columns(mix, parts, c) for parts, c in zip(columns, change)]
    assert [t.shape for t in taken] == [c.shape for c in change]
    assert torch.allclose(torch.cat([t.double().flatten() for t in taken]), whole @ mix, rtol=1e-5, atol=1e-5)
