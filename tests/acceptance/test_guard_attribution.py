"""GUARD: weights from attribution by hand and to first order, what they find entangled, and what they do at
matched forgetting."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import micro
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from unremember.data.split import Row, Split, make_split
from unremember.engine import loop
from unremember.engine.losses import PlainLoss
from unremember.engine.probe import GradientProbe
from unremember.engine.recipe import Recipe
from unremember.engine.samplings.guard_attribution import GuardAttribution, entanglement
from unremember.engine.samplings.melu import MELU
from unremember.engine.seams import Context, State, Term
from unremember.engine.settings import Settings
from unremember.errors import Collapsed, ConfigError, DataError
from unremember.methods.language.guard_attribution import guard_attribution
from unremember.models.presets import small_llama
from unremember.tasks.image import ImageTask
from unremember.tasks.language import LanguageTask
from unremember.tasks.protocol import Need
from unremember.tasks.text import Template

# --- a toy of 40 people: where they live follows from their family, the rest is their own ---

PRIVATE = ("job", "pet", "food")
GONE = 6
CE = "cross_entropy"


def facts() -> Split:
    """Eight rows a person (four attributes, two wordings); 6 people to forget, 34 to keep; five families,
    one city each."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for person in range(40):
        family = person % 5
        values = {"city": f"city{family}"} | {kind: f"{kind}{rng.integers(12)}" for kind in PRIVATE}
        rows += [
            {
                "question": f"{asked} {kind} p{person} f{family}",
                "answer": value,
                "attribute": kind,
                "entity": f"p{person}",
            }
            for kind, value in values.items()
            for asked in ("what", "which")
        ]
    return make_split({"forget": rows[: 8 * GONE], "retain": rows[8 * GONE :], "all": rows})


SPLIT = facts()


@functools.cache
def task() -> LanguageTask:
    """One token a word."""
    words = sorted(
        {word for row in SPLIT["all"].rows for word in f"{row['question']} {row['answer']}".split()}
    )
    made = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(["<end>", "<pad>", *words])}, unk_token="<pad>")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return LanguageTask(
        PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<pad>"),
        Template("{question} "),
    )


@functools.cache
def learned(epochs: int = 30, seed: int = 0) -> Any:
    """A Llama of two blocks of width 64 that knows every row; ``seed`` orders what it reads."""
    torch.set_num_threads(1)
    model = small_llama(len(task().tokenizer), hidden=64, layers=2, heads=4, context=16, spread=0.02)
    settings = Settings(epochs=epochs, batch_size=32, lr=3e-3, weight_decay=0.0, seed=seed)
    return loop.run_recipe(model, task(), SPLIT, Recipe((Term("all", "nll"),)), settings, quiet=True)


def context(model: Any, split: Split = SPLIT, part: Any = None) -> Context:
    roles = ("forget", "retain")
    return Context(model, part or task(), split, roles, {role: split[role].keys for role in roles}, 16, 0)


def every(role: str) -> np.ndarray:
    return np.arange(len(SPLIT[role]))


def of(attribute: str, role: str) -> np.ndarray:
    return np.array([row["attribute"] == attribute for row in SPLIT[role].rows])


def norm(direction: Mapping[str, Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(direction.values()))


# --- 1: by hand ---


@dataclasses.dataclass(frozen=True)
class Point:
    """What the quadratic task shows of rows: θ and the rows' constants."""

    theta: Tensor
    at: Tensor

    def read(self, need: Need) -> Tensor:
        return self.at


@dataclasses.dataclass(frozen=True)
class Quadratic(PlainLoss):
    """½(θ - c)²."""

    needs: ClassVar[tuple[Need, ...]] = (Need("c", "logits"),)

    def apply(self, view: Any, reference: Any, state: State) -> tuple[Tensor, State]:
        return (view.theta - view.at) ** 2 / 2, state


class Constants:
    """A task whose rows are numbers."""

    def encode(self, split: Split, role: str, texts: Any) -> Tensor:
        return torch.tensor(split[role].column("c"), dtype=torch.float64)

    def sizes(self, data: Tensor, text: str) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(len(data), dtype=np.int64), np.ones(len(data), dtype=np.int64)

    def forward(self, model: Any, parts: Any, needs: Any) -> dict[str, Point]:
        return {
            role: Point(model.theta, data[torch.from_numpy(rows)]) for role, (data, rows) in parts.items()
        }


def by_hand(forget: list[float]) -> Context:
    model = nn.Module()
    model.theta = nn.Parameter(torch.zeros((), dtype=torch.float64))
    split = make_split({"forget": [{"c": c} for c in forget], "retain": [{"c": 2.0, "kept": True}]})
    return context(model, split, Constants())


def test_scores_and_weights_by_hand() -> None:
    part = GuardAttribution(loss=Quadratic(), floor=0.0)
    scores = part.scores(by_hand([1.0, 2.0, -1.0]))
    assert scores == pytest.approx([2, 4, -2], abs=1e-12) and scores.std() == pytest.approx(
        2.494438257849, abs=1e-9
    )
    weights = part.weights(scores)
    assert weights == pytest.approx([0.467343450911, 0.209616716288, 2.323039832801], abs=1e-9)
    assert (weights * scores).mean() == pytest.approx(
        -0.957641966210, abs=1e-9
    ) and scores.mean() == pytest.approx(4 / 3, abs=1e-12)
    assert dataclasses.replace(part, form="reciprocal").weights(scores) == pytest.approx(
        [0.686794432866, 0.525089935872, 1.788115631263], abs=1e-9
    )
    cosines = dataclasses.replace(part, score="cosine").scores(by_hand([1.0, 2.0, -1.0]))
    assert cosines == pytest.approx([1, 1, -1], abs=1e-12), "one weight: a cosine is a sign"


# --- 2 and 3: exact to first order ---


@pytest.fixture(scope="module")
def double() -> GradientProbe:
    return GradientProbe(copy.deepcopy(learned()).double(), task(), SPLIT)


def test_slopes_are_inner_products_of_gradients(double: GradientProbe) -> None:
    direction, rows = double.gradient("retain", every("retain")), np.array([3, 40, 7, 19, 0, 47])
    naive = []
    for row in rows:
        parts = double.gradient("forget", np.array([row]))
        naive.append(sum(float((parts[name] * direction[name]).sum()) for name in direction))
    slopes, differences = (read(direction, "forget", rows) for read in (double.slopes, double.differences))
    scale = float(np.abs(naive).max())
    assert np.abs(slopes - naive).max() < 1e-4 * scale, (
        "log-probabilities are read in float32, whatever the weights are in"
    )
    assert np.abs(differences - naive).max() < 0.01 * scale and scale > 1e-4
    before = copy.deepcopy(double.model.state_dict())
    double.differences(direction, "forget", rows)
    assert all(torch.equal(value, before[name]) for name, value in double.model.state_dict().items())


class NoForwardMode(torch.autograd.Function):
    """The identity with a backward and no forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def test_where_there_is_no_forward_mode_differences_stand_in(double: GradientProbe) -> None:
    direction, rows = double.gradient("retain", every("retain")), every("forget")[:5]
    exact = double.slopes(direction, "forget", rows)
    hook = double.model.base_model.layers[0].mlp.register_forward_hook(
        lambda module, given, out: NoForwardMode.apply(out)
    )
    stood_in = double.slopes(direction, "forget", rows)
    assert np.array_equal(stood_in, double.differences(direction, "forget", rows)) and not np.array_equal(
        stood_in, exact
    )
    hook.remove()
    assert np.abs(stood_in - exact).max() < 0.01 * np.abs(exact).max()


def exact() -> tuple[nn.Module, Split, GradientProbe]:
    """The micro-world in float64 throughout, half learned."""
    torch.set_num_threads(1)
    _, split, net = micro.learned(0.6, 0, 150)
    return net, split, GradientProbe(net, ImageTask(), split)


def test_slopes_of_a_classifier_are_exact() -> None:
    net, split, read = exact()
    direction, rows = (
        read.gradient("retain", np.arange(len(split["retain"])), CE),
        np.arange(len(split["forget"])),
    )
    parts = [read.gradient("forget", rows[i : i + 1], CE) for i in rows]
    naive = np.array(
        [sum(float((part[name] * direction[name]).sum()) for name in direction) for part in parts]
    )
    assert (
        np.abs(read.slopes(direction, "forget", rows, CE) - naive).max() < 1e-12
        and np.abs(naive).min() > 1e-6
    )
    assert read.lengths("forget", rows, CE) == pytest.approx([norm(part) for part in parts])
    net[0].weight.requires_grad_(False)
    fewer = read.gradient("retain", np.arange(len(split["retain"])), CE)
    assert set(fewer) == set(direction) - {"0.weight"}, "only weights that may move count"
    moved = [sum(float((part[name] * fewer[name]).sum()) for name in fewer) for part in parts]
    assert np.abs(read.slopes(fewer, "forget", rows, CE) - moved).max() < 1e-12
    net[0].weight.requires_grad_(True)


def test_one_step_hurts_the_retain_set_as_predicted() -> None:
    """η/N Σ ωᵢ aᵢ against what an ascent step does, for uniform weights and three temperatures."""
    net, split, read = exact()
    kept, data = np.arange(len(split["retain"])), ImageTask().encode(split, "forget", ["input"])
    scores, harms, eta = GuardAttribution(loss=CE).scores(context(net, split, ImageTask())), [], 1e-4
    for tau in (1e9, 2.0, 1.0, 0.5):
        weights = GuardAttribution(tau=tau, floor=0.0).weights(scores)
        loss = (
            torch.from_numpy(weights) * F.cross_entropy(net(data.inputs), data.labels, reduction="none")
        ).mean()
        changed = copy.deepcopy(net)
        for p, grad in zip(changed.parameters(), torch.autograd.grad(loss, list(net.parameters()))):
            p.data += eta * grad
        after = GradientProbe(changed, ImageTask(), split).losses("retain", kept, CE).mean()
        harms.append(eta * (weights * scores).mean())
        assert after - read.losses("retain", kept, CE).mean() == pytest.approx(harms[-1], rel=0.01), tau
    assert harms == sorted(harms, reverse=True), "the sharper the weights, the smaller the harm"


@pytest.mark.parametrize("form", ["softmax", "reciprocal"])
def test_weighted_damage_is_at_most_the_uniform_one(form: Any) -> None:
    """Chebyshev's sum inequality, for any scores."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.standard_t(2, size=30) * 10 ** rng.uniform(-6, 3)
        for floor in (0.0, 0.1, 0.5):
            weights = GuardAttribution(form=form, floor=floor, tau=float(rng.uniform(0.05, 5))).weights(
                scores
            )
            assert (
                (weights * scores).sum() < scores.sum()
                and weights.sum() == pytest.approx(30, abs=1e-9)
                and weights.min() >= floor
            )


# --- 4: it finds what is shared ---


def test_what_is_shared_scores_above_what_is_private(double: GradientProbe) -> None:
    """Along the retained people's cities, forgotten people's cities stand out; the mean over the same rows
    is ‖G‖²."""
    direction = double.gradient("retain", np.flatnonzero(of("city", "retain")))
    scores = double.slopes(direction, "forget", every("forget"))
    length = double.lengths("forget", every("forget")) * norm(direction)
    alike = {kind: float(np.abs((scores / length)[of(kind, "forget")]).mean()) for kind in ("city", *PRIVATE)}
    assert alike["city"] > 2 * max(alike[kind] for kind in PRIVATE), alike
    whole = double.gradient("all", np.arange(len(SPLIT["all"])))
    assert double.slopes(whole, "all", np.arange(len(SPLIT["all"]))).mean() == pytest.approx(
        norm(whole) ** 2, rel=1e-5
    )


def test_the_plan_says_what_is_entangled() -> None:
    """Early in learning the families' cities are what is shared; once all is known by heart what stands out
    is noise."""
    model = copy.deepcopy(learned(4)).double()
    rows, scores = entanglement(context(model)), GuardAttribution().scores(context(model))
    assert [row["id"] for row in rows] == SPLIT["forget"].row_digests
    assert [row["z"] for row in rows] == pytest.approx((scores - scores.mean()) / scores.std())
    assert [row["entangled"] for row in rows] == [row["z"] > 2 for row in rows]
    named = [row["attribute"] for row, found in zip(SPLIT["forget"].rows, rows) if found["entangled"]]
    assert 0 < len(named) < 10 and set(named) == {"city"}, named
    assert [row["weight"] for row in rows] == pytest.approx(GuardAttribution().weights(scores))
    attribute = {
        digest: row["attribute"] for digest, row in zip(SPLIT["retain"].row_digests, SPLIT["retain"].rows)
    }
    same = np.mean(
        [attribute[found["nearest"]] == row["attribute"] for found, row in zip(rows, SPLIT["forget"].rows)]
    )
    assert same > 0.8, "the nearest row to keep asks for the same attribute (by chance a quarter would)"


# --- 5: extremes ---


def forget(
    sampling: Any,
    seed: int = 0,
    split: Split = SPLIT,
    folder: Path | None = None,
    watch: Any = None,
    base: Any = "ascent",
    every: int = 2,
    original: Any = None,
    **more: Any,
) -> Any:
    settings = Settings(
        **{
            "max_steps": 60,
            "batch_size": 16,
            "lr": 3e-4,
            "weight_decay": 0.0,
            "warmup": 0.0,
            "schedule": "constant",
            "seed": seed,
            **more,
        }
    )
    recipe = Recipe((Term("forget", base),), sampling=sampling)
    return loop.run_recipe(
        copy.deepcopy(original or learned()),
        task(),
        split,
        recipe,
        settings,
        folder,
        watch,
        every,
        quiet=True,
    )


def same(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters()))


def test_a_boundless_temperature_is_uniform_bit_for_bit() -> None:
    plain, even, sharp = (
        forget(s, max_steps=4)
        for s in ("paired", GuardAttribution(tau=1e9, per_epoch=1.5), GuardAttribution(per_epoch=1.5))
    )
    assert same(plain, even) and not same(plain, sharp)


def test_weights_follow_their_rows_and_the_floor_holds() -> None:
    turned = SPLIT.with_rows(forget=SPLIT["forget"].rows[::-1])
    scores = GuardAttribution().scores(context(learned()))
    assert GuardAttribution().scores(context(learned(), turned))[::-1] == pytest.approx(
        scores, rel=1e-3, abs=1e-6
    )
    cold = GuardAttribution(tau=1e-4, floor=0.0).weights(scores)
    assert cold.max() == pytest.approx(48, abs=1e-9) and cold.argmax() == scores.argmin(), (
        "all on the least harmful row"
    )
    floored = GuardAttribution(tau=1e-3, floor=0.1).weights(scores)
    assert (
        floored.min() == 0.1
        and floored.sum() == pytest.approx(48, abs=1e-9)
        and floored.max() == pytest.approx(48 - 47 * 0.1)
    )
    assert (GuardAttribution().weights(np.full(7, 3.0)) == 1).all()


def test_what_cannot_be_weighed_is_one_error() -> None:
    broken = copy.deepcopy(learned())
    broken.base_model.norm.weight.data[0] = torch.nan
    with pytest.raises(Collapsed, match="attribution of 48 of 48 forget rows is not finite"):
        GuardAttribution().scores(context(broken))
    with pytest.raises(DataError, match="no role 'retain'"):
        forget(GuardAttribution(), split=make_split({"forget": SPLIT["forget"].rows}), max_steps=1)
    for wrong in ({"tau": 0.0}, {"floor": 1.0}, {"score": "dott"}, {"form": "soft"}, {"per_epoch": -1.0}):
        with pytest.raises(ConfigError):
            GuardAttribution(**wrong)  # type: ignore[arg-type]


def test_a_stopped_run_goes_on_exactly(tmp_path: Path) -> None:
    def stop(model: Any, step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    part = GuardAttribution(per_epoch=1.5)
    whole = forget(part, folder=tmp_path / "whole", max_steps=8)
    with pytest.raises(KeyboardInterrupt):
        forget(part, folder=tmp_path / "cut", watch=stop, every=1, max_steps=8)
    assert same(whole, forget(part, folder=tmp_path / "cut", max_steps=8)) and not same(whole, learned())


def test_weights_ride_on_any_sampling() -> None:
    run, melu = context(learned()), MELU(exposure="balanced")
    part = GuardAttribution(over=melu, per_epoch=0.0)
    state = part.refresh(run, part.init(run))
    assert part.refresh(run, {**state, "position": 500}) == {**state, "position": 500}, "read once"
    (step, after), (plain, _) = part.apply(run, state), melu.apply(run, melu.init(run))
    assert part.steps_per_epoch(run) == melu.steps_per_epoch(run) == 17 and after["position"] == 1
    assert (
        all(np.array_equal(step[role].rows, plain[role].rows) for role in plain)
        and (step["retain"].weights == 1).all()
    )
    assert step["forget"].weights == pytest.approx(
        plain["forget"].weights * np.array(state["weights"])[plain["forget"].rows], rel=1e-6
    )
    assert step["forget"].weights.std() > 0.1


# --- cost ---


def test_a_reading_costs_one_backward_and_one_forward_mode_pass() -> None:
    """Readings before steps 1, 3 and 5 of 5; each reads 272 rows in 5 batches (with a backward) and 48 rows
    in one."""
    model, count = copy.deepcopy(learned()), {"forward": 0, "backward": 0}

    def hook(module: Any, given: Any, out: Any) -> None:
        count["forward"] += 1
        if out.last_hidden_state.requires_grad:
            out.last_hidden_state.register_hook(lambda _: count.update(backward=count["backward"] + 1))

    model.base_model.register_forward_hook(hook)
    recipe = dataclasses.replace(guard_attribution("ascent"), sampling=GuardAttribution(per_epoch=1.5))
    loop.run_recipe(model, task(), SPLIT, recipe, Settings(max_steps=5, batch_size=16, lr=1e-4), quiet=True)
    assert count == {"forward": 5 + 3 * (5 + 1), "backward": 5 + 3 * 5}
    assert (
        guard_attribution().terms[0].loss == "npo"
        and guard_attribution("ascent", tau=2.0, per_epoch=0.0).sampling["per_epoch"] == 0
    )


# --- 6: outcomes at matched forgetting ---


@dataclasses.dataclass(frozen=True)
class Shuffled(GuardAttribution):
    """The null: the same weights, each time on rows at random."""

    def refresh(self, context: Any, state: State) -> State:
        after = super().refresh(context, state)
        if after is state:
            return state
        return {
            **after,
            "weights": np.random.default_rng([context.seed, after["read_at"]])
            .permutation(after["weights"])
            .tolist(),
        }


@dataclasses.dataclass(frozen=True)
class Inverted(GuardAttribution):
    """The wrong sign: what hurts the retain set most is forgotten most."""

    def weights(self, scores: np.ndarray) -> np.ndarray:
        return super().weights(-scores)


SHARP: dict[str, Any] = {"floor": 0.0, "tau": 0.5, "per_epoch": 1.5}
WEIGHTS: dict[str, Any] = {
    "uniform": "paired",
    "refreshed": GuardAttribution(**SHARP),
    "refreshed inverted": Inverted(**SHARP),
    "refreshed shuffled": Shuffled(**SHARP),
    "static": GuardAttribution(floor=0.0, per_epoch=0.0),
    "static shuffled": Shuffled(floor=0.0, per_epoch=0.0),
}


@functools.cache
def outcome(name: str, seed: int, original: int = 0) -> dict[str, float]:
    """Retain NLL, of all rows and of cities, interpolated where the forget NLL is 1; and the forget NLL
    after 8 steps."""
    curve = []

    def watch(model: Any, step: int) -> bool:
        read = GradientProbe(model, task(), SPLIT)
        gone, kept = (read.losses(role, every(role)) for role in ("forget", "retain"))
        curve.append((gone.mean(), kept.mean(), kept[of("city", "retain")].mean()))
        return step >= 8 and gone.mean() >= 1

    forget(WEIGHTS[name], seed, watch=watch, original=learned(60, original))
    gone, kept, city = np.array(curve).T
    assert gone[-1] >= 1
    at = slice(None, int(np.argmax(gone >= 1)) + 1)
    return {
        "retain": float(np.interp(1.0, gone[at], kept[at])),
        "city": float(np.interp(1.0, gone[at], city[at])),
        "forgotten": float(gone[3]),
    }


def test_weights_spare_the_retain_set_and_their_inverse_harms_it() -> None:
    """At matched forgetting against the wrong sign; at equal steps against no weights, where they forget
    less."""
    found = {
        name: [outcome(name, seed) for seed in range(2)]
        for name in ("uniform", "refreshed", "refreshed inverted")
    }
    retain, forgotten = (
        {name: np.mean([one[key] for one in some]) for name, some in found.items()}
        for key in ("retain", "forgotten")
    )
    assert max(retain["refreshed"], retain["uniform"]) < retain["refreshed inverted"] - 0.1, retain
    assert forgotten["refreshed"] < forgotten["uniform"], forgotten


@pytest.mark.full
def test_weights_against_no_weights_and_their_null() -> None:
    """Ten originals, two seeds each: refreshed weights beat uniform ones and the same weights on rows at
    random."""
    runs = [(seed, original) for original in range(10) for seed in range(2)]
    found = {
        name: {
            key: np.array([outcome(name, *run)[key] for run in runs])
            for key in ("retain", "city", "forgotten")
        }
        for name in WEIGHTS
    }
    plain = found["uniform"]
    for name, figures in found.items():
        print(
            name,
            {
                key: f"{v.mean():.3f}, {gap.mean():+.3f} ± {gap.std(ddof=1) / len(runs) ** 0.5:.3f}"
                for key, v in figures.items()
                for gap in [v - plain[key]]
            },
        )
    for other in ("uniform", "refreshed shuffled", "refreshed inverted"):
        gain = found["refreshed"]["retain"] - found[other]["retain"]
        assert gain.mean() < -gain.std(ddof=1) / len(runs) ** 0.5, other
