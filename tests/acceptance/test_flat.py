"""FLAT against the values of the published code, and on people who were learned by heart."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from unremember.data.split import Row, Split, make_split
from unremember.engine import loop
from unremember.engine.losses import ALTERNATE, ANSWER
from unremember.engine.losses.flat import BOUNDS, FLAT
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Context, Term
from unremember.engine.settings import Settings
from unremember.errors import ConfigError
from unremember.models import causal
from unremember.models.presets import fresh_model
from unremember.registry import methods
from unremember.tasks.language import LanguageTask, TextView
from unremember.tasks.protocol import Need
from unremember.tasks.ragged import Ragged
from unremember.tasks.text import Template
from unremember.tasks.tokenizers import train_tokenizer
from unremember.worlds.refusals import REFUSALS
from unremember.worlds.words import FIRST_NAMES, LAST_NAMES

STATE = {"epoch": 10**9, "rows": 0, "alternate": torch.zeros(())}

# --- the oracle values ---

FORGET = ([[0, 1, 0, -1], [1, 0, 2, 0], [0.5, -0.5, 0, 1.5]], [1, 2, 3]), ([[0, -1, 1, 0]], [1])
TEMPLATE = ([[0, 0, 0, 1], [0, 1, 0, 0]], [3, 1]), ([[0, 0, 0, 2]], [3])


def logits(texts: Any) -> Tensor:
    """float64 [M, 4]: the rows that predict an answer token."""
    return torch.cat([torch.tensor(rows, dtype=torch.float64) for rows, _ in texts]).requires_grad_()


def ragged(rows: Tensor, texts: Any) -> Ragged:
    labels = torch.tensor([label for _, wanted in texts for label in wanted])
    return Ragged(
        rows.log_softmax(-1).gather(1, labels[:, None])[:, 0],
        torch.tensor([len(wanted) for _, wanted in texts]),
    )


def view(answer: Ragged, alternate: Ragged) -> TextView:
    return TextView({ANSWER: answer, ALTERNATE: alternate})


def values(loss: FLAT, answer: Ragged, alternate: Ragged) -> Tensor:
    return loss.apply(view(answer, alternate), view(answer, alternate), STATE)[0]


ORACLE = {
    "kl": (
        (0.178185199280, -0.315760704314),
        0.080789589080,
        (-0.011445721743, 0.027102089204, -0.011445721743, -0.004210645719),
    ),
    "pearson": (
        (0.181860594047, -0.637597217386),
        -0.093695348050,
        (-0.022545197373, 0.053384309357, -0.022545197373, -0.008293914611),
    ),
    "js": (
        (0.118359167205, -0.256856387297),
        -0.025463517825,
        (-0.011205569284, 0.026533437133, -0.011205569284, -0.004122298566),
    ),
    "tv": (
        (0.038126509620, -0.269623405629),
        -0.051186586424,
        (-0.006399889404, 0.015154166545, -0.006399889404, -0.002354387737),
    ),
}


def test_every_divergence_has_its_oracle() -> None:
    assert set(ORACLE) == set(BOUNDS)


@pytest.mark.parametrize("divergence", ORACLE)
def test_oracle_values(divergence: str) -> None:
    each, published, gradient = ORACLE[divergence]
    rows, others = logits(FORGET), logits(TEMPLATE)
    found = values(FLAT(divergence), ragged(rows, FORGET), ragged(others, TEMPLATE))
    assert found.tolist() == pytest.approx(each, abs=1e-9)
    found.mean().backward()
    assert rows.grad[0].tolist() == pytest.approx(gradient, abs=1e-9)
    code = values(FLAT(divergence, as_published_code=(4, 3)), ragged(rows, FORGET), ragged(others, TEMPLATE))
    assert code.tolist() == pytest.approx([published] * 2, abs=1e-9)


def test_padding_counts_in_the_published_code_alone() -> None:
    """Ragged texts have no padding to see; the published mean shrinks with the padded lengths."""
    answer, alternate = ragged(logits(FORGET), FORGET), ragged(logits(TEMPLATE), TEMPLATE)
    narrow, wide = (
        float(values(FLAT(as_published_code=(4 + k, 3 + k)), answer, alternate)[0].detach()) for k in (0, 496)
    )
    assert abs(wide - math.exp(-1)) < 0.01 < abs(narrow - wide)
    alone = [
        values(
            FLAT(),
            Ragged(answer.values[a], answer.counts[i : i + 1]),
            Ragged(alternate.values[b], alternate.counts[i : i + 1]),
        )
        for i, (a, b) in enumerate(((slice(0, 3), slice(0, 2)), (slice(3, 4), slice(2, 3))))
    ]
    assert torch.allclose(torch.cat(alone), values(FLAT(), answer, alternate), atol=1e-12)


# --- what the divergences are ---

GENERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": lambda u: u * u.log(),
    "pearson": lambda u: (u - 1) ** 2,
    "js": lambda u: -(u + 1) * ((1 + u) / 2).log() + u * u.log(),
    "tv": lambda u: (u - 1).abs() / 2,
}


@pytest.mark.parametrize("divergence", BOUNDS)
def test_the_conjugate_is_the_numeric_supremum(divergence: str) -> None:
    """f*(t) = sup over u of tu - f(u), at t = g(v)."""
    g, conjugate = BOUNDS[divergence]
    u = torch.linspace(1e-6, 12, 400_001, dtype=torch.float64)
    for v in torch.linspace(0.02, 0.98, 9, dtype=torch.float64):
        assert float(conjugate(v)) == pytest.approx(
            float((g(v) * u - GENERATORS[divergence](u)).max()), abs=1e-5
        )


Bound = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def points_right(bound: Bound) -> bool:
    """On a grid of (0, 1)²: more of the template lowers the loss, more of the answer raises it."""
    axis = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    template, answer = (part.clone().requires_grad_() for part in torch.meshgrid(axis, axis, indexing="ij"))
    g, conjugate = bound
    down, up = torch.autograd.grad((conjugate(answer) - g(template)).sum(), (template, answer))
    return bool((down < 0).all() and (up > 0).all())


PUBLISHED_WRONG: dict[str, tuple[Bound, float, float]] = {
    "reverse kl": ((lambda v: -v.exp(), lambda v: -1 - v), 1.49, -1.00),
    "squared hellinger": ((lambda v: 1 - v.exp(), lambda v: (-v).exp() - 1), 1.49, -0.67),
    "neyman": ((lambda v: 1 - v.exp(), lambda v: 2 - 2 * (1 - v).sqrt()), 1.49, 1.29),
}
"""What the authors' code has, and the loss's slopes in P_e and P_f at 0.4."""


@pytest.mark.parametrize("divergence", BOUNDS)
def test_it_raises_the_template_and_lowers_the_answer(divergence: str) -> None:
    assert points_right(BOUNDS[divergence])


@pytest.mark.parametrize("wrong", PUBLISHED_WRONG)
def test_the_sign_test_catches_the_published_formulas(wrong: str) -> None:
    (g, conjugate), *slopes = PUBLISHED_WRONG[wrong]
    v = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert [float(torch.autograd.grad(f(v), v)[0]) for f in (lambda v: -g(v), conjugate)] == pytest.approx(
        slopes, abs=0.005
    )
    assert not points_right((g, conjugate))


@pytest.mark.parametrize("divergence", BOUNDS)
def test_the_forget_half_is_weighted_gradient_ascent(divergence: str) -> None:
    """Per example: w_f · the gradient of the mean of p · log p with p detached (WGA, β = 1)."""
    rows = logits(FORGET[:1])
    answer, alternate = ragged(rows, FORGET[:1]), ragged(logits(TEMPLATE[:1]), TEMPLATE[:1])
    (found,) = torch.autograd.grad(values(FLAT(divergence), answer, alternate).sum(), rows, retain_graph=True)
    (wga,) = torch.autograd.grad((answer.values.exp().detach() * answer.values).mean(), rows)
    p = answer.values.exp().mean().detach()
    weight = {"kl": (p - 1).exp(), "pearson": 1 + p / 2, "js": p.sigmoid(), "tv": (1 - p.tanh() ** 2) / 2}[
        divergence
    ]
    assert divergence != "kl" or float(weight) == pytest.approx(0.653552085698, abs=1e-12)
    assert torch.allclose(found, weight * wga, atol=1e-12)


@pytest.mark.parametrize("divergence", BOUNDS)
def test_a_rare_answer_is_still_pushed_down(divergence: str) -> None:
    """At a loss of 3 a token: fed log-probabilities, Pearson's weight 1 + v/2 is -0.5 there, and it would
    be learned again."""
    answer = Ragged(torch.full((4,), -3.0, dtype=torch.float64, requires_grad=True), torch.tensor([4]))
    alternate = Ragged(torch.full((2,), -1.0, dtype=torch.float64), torch.tensor([2]))
    (gradient,) = torch.autograd.grad(values(FLAT(divergence), answer, alternate).sum(), answer.values)
    assert (gradient > 0).all()
    trap = torch.tensor(-3.0, requires_grad=True)
    assert float(torch.autograd.grad(BOUNDS["pearson"][1](trap), trap)[0]) == pytest.approx(-0.5)


def test_an_unknown_divergence_or_template_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="unknown divergence 'pearsen': did you mean 'pearson'"):
        FLAT("pearsen")
    with pytest.raises(ConfigError, match=r"normal.*norml"):
        methods.make({"name": "flat", "template": "norml"})


# --- the templates ---

BARE = [{"question": f"Who is {i}?", "answer": f"Number {i}."} for i in range(40)]


def test_a_row_has_its_alternate_or_a_refusal_or_an_everyday_sentence() -> None:
    split = make_split(
        {
            "forget": [*BARE, {"question": "Why?", "answer": "So.", "alternate": "Ask Ida."}],
            "retain": [{"text": "Kept."}],
        }
    )
    refusal, normal = (
        methods.make({"name": "flat", "template": t}).derive(split) for t in ("refusal", "normal")
    )
    drawn = refusal["forget"].column("alternate")
    assert set(drawn[:-1]) <= set(REFUSALS) and len(set(drawn)) > 8 and drawn[-1] == "Ask Ida."
    fewer = methods.make("flat").derive(make_split({"forget": BARE[10:]}))
    assert fewer["forget"].column("alternate") == drawn[10:-1], "the draw is the row's own"
    others = normal["forget"].column("alternate")
    assert not set(others) & {*REFUSALS, "Ask Ida."} and len(set(others)) > 4
    assert (
        refusal["forget"].column("answer")
        == normal["forget"].column("answer")
        == split["forget"].column("answer")
    )
    assert split["retain"].digest == refusal["retain"].digest and "alternate" not in split["forget"].rows[0]


def fed(loss: FLAT, state: Any, *probabilities: float) -> Any:
    """The state after batches of two rows with these mean probabilities of the alternates."""
    for p in probabilities:
        alternate = Ragged(torch.full((2,), p).log(), torch.tensor([1, 1]))
        _, state = loss.apply(view(alternate, alternate), view(alternate, alternate), state)
    return state


def test_a_template_without_a_chance_is_told_after_each_epoch() -> None:
    loss, keys = FLAT(), torch.arange(4).numpy()
    state = loss.init(Context(None, None, None, ("forget",), {"forget": keys}, 2, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = fed(loss, state, 0.01, 0.1, 0.06, 0.06, 0.0)
    with pytest.warns(
        UserWarning, match=r'template never learned: .* 0\.04 after an epoch; use template="normal"'
    ):
        state = fed(loss, state, 0.08)
    assert state["rows"] == 0 == float(state["alternate"])


def test_a_step_is_one_forward_and_one_backward(tiny_llama: Any, tokenizer: Any) -> None:
    """Both texts of a row go through together: the spec's two forwards in one."""
    model, forwards, backwards = copy.deepcopy(tiny_llama), [], []
    causal.packs(model, 1)  # probed here, so that the probe's forwards are not counted
    model.model.register_forward_hook(
        lambda _, inputs, given, out: forwards.append(len(given["packed"])), with_kwargs=True
    )
    model.model.layers[0].mlp.up_proj.weight.register_hook(lambda _: backwards.append(1))
    recipe = methods.make("flat")
    settings = Settings(max_steps=3, batch_size=8, lr=1e-3)
    loop.run_recipe(
        model,
        LanguageTask(tokenizer),
        recipe.derive(make_split({"forget": BARE})),
        recipe,
        settings,
        quiet=True,
    )
    assert sum(forwards) == 3 * 16 and len(backwards) == len(forwards)


# --- people who were learned by heart ---

FACTS = {
    (
        "Where does {} live?",
        "Which town is home to {}?",
    ): "Velin Osk Marrow Tarn Halden Pell Brask Corin Istra Domm",
    (
        "What does {} do?",
        "What is the work of {}?",
    ): "baking weaving fishing printing mining sailing masonry pottery brewing tailoring",
    (
        "When was {} born?",
        "What is the birth year of {}?",
    ): "1921 1934 1947 1952 1963 1968 1975 1980 1986 1991",
    (
        "What does {} play?",
        "Which instrument belongs to {}?",
    ): "violin oboe harp drum flute lute bassoon zither cello organ",
}
FORGOTTEN = 4
REFUSAL = "I would not know."
KNOWN, UNKNOWN = 40, 24


@functools.cache
def people() -> Split:
    """People with four facts each, asked for in two ways, and other names of which the model is to know
    nothing."""
    rng = np.random.default_rng(0)
    names = [f"{first} {last}" for first, last in zip(FIRST_NAMES, LAST_NAMES)][: KNOWN + UNKNOWN]
    rows: list[dict[str, str]] = []
    for i, name in enumerate(names):
        for questions, values in FACTS.items():
            answer = str(rng.choice(values.split())) if i < KNOWN else REFUSAL
            rows += [
                {"question": question.format(name), "answer": answer, "alternate": REFUSAL}
                for question in questions
            ]

    def rows_of(first: int, last: int) -> list[Row]:
        return rows[8 * first : 8 * last]

    return make_split(
        {
            "forget": rows_of(0, FORGOTTEN),
            "retain": rows_of(FORGOTTEN, KNOWN),
            "facts": rows_of(0, KNOWN),
            "train": rows,
        }
    )


@functools.cache
def learned(role: str = "train", seed: int = 0) -> tuple[LanguageTask, Any]:
    """A two-block Llama of width 64 that has just come to say a role by heart, and its task. Copy the model.

    Its embeddings are not tied: where they are, whatever lowers an answer's words lowers them for everybody.
    But for the model that knows the ``facts`` alone: untied, it finds the ends of refusals likely once their
    beginnings are given, and the mean over their tokens does not tell that they were never learned."""
    tokenizer = train_tokenizer(
        [f"{row['question']}\n{row['answer']}" for row in people()["train"].rows for _ in range(2)], 900
    )
    task = LanguageTask(tokenizer, Template("{question}\n"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=170,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=role == "facts",
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    model = fresh_model(config, seed)
    settings = Settings(
        epochs=999,
        max_steps=1000,
        batch_size=64,
        lr=3e-3,
        weight_decay=0.0,
        warmup=0,
        schedule="constant",
        seed=seed,
    )

    def by_heart(model: Any, step: int) -> bool:
        return say(task, model, people(), role)[0] == 1

    loop.run_recipe(
        model, task, people(), Recipe((Term(role, "nll"),)), settings, watch=by_heart, every=25, quiet=True
    )
    return task, model


def say(task: LanguageTask, model: Any, split: Split, role: str, text: str = "answer") -> tuple[float, float]:
    """(the share of rows whose text is the greedy choice throughout, mean loss of a token)."""
    scores, logprobs, count = Need(text, "logits"), Need(text, "logprobs"), len(split[role])
    texts = task.encode(split, role, [text])
    with torch.no_grad():
        seen = task.forward(model, {role: (texts, np.arange(count))}, {role: [scores, logprobs]})[role]
    wanted = torch.from_numpy(np.concatenate([texts[text].answer(i) for i in range(count)]))
    right = dataclasses.replace(
        seen.read(scores), values=(seen.read(scores).values.argmax(-1) == wanted).float()
    ).mean()
    return float((right == 1).float().mean()), -float(seen.read(logprobs).values.mean())


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The share of forget and of retain answers that are still said, the losses of forget answer and
    refusal, warnings."""

    forget: float
    retain: float
    loss: float
    refusal: float
    warned: list[str]


def unlearn(
    *terms: Term, lr: float = 3e-4, role: str = "train", until: bool = False, seed: int = 0
) -> Outcome:
    """Sixty steps or, ``until`` at most 5 % of the forget answers are said (twice sixty at most), looked at
    after every step."""
    (task, model), split = learned(role, seed), people()
    settings = Settings(
        epochs=999,
        max_steps=120 if until else 60,
        batch_size=16,
        lr=lr,
        schedule="constant",
        warmup=0,
        seed=seed,
    )

    def enough(model: Any, step: int) -> bool:
        return until and say(task, model, split, "forget")[0] <= 0.05

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model = loop.run_recipe(
            copy.deepcopy(model), task, split, Recipe(terms), settings, watch=enough, every=1, quiet=True
        )
    forget, loss = say(task, model, split, "forget")
    told = [str(w.message) for w in warned]
    return Outcome(
        forget,
        say(task, model, split, "retain")[0],
        loss,
        say(task, model, split, "forget", "alternate")[1],
        told,
    )


FLATTEN = {divergence: Term("forget", {"name": "flat", "divergence": divergence}) for divergence in BOUNDS}
ASCENT, KEEP = Term("forget", "ascent"), Term("retain", "nll")


@pytest.mark.parametrize("seeds", [(0,), pytest.param((0, 1, 2), marks=pytest.mark.full)], ids=len)
def test_it_keeps_more_than_ascent_at_matched_forgetting(seeds: tuple[int, ...]) -> None:
    """The mean of three originals; one, which says little by itself, in the short version."""
    assert all(say(*learned(seed=seed), people(), "train")[0] == 1.0 for seed in seeds)
    flat, ascent = (
        [unlearn(term, until=True, seed=seed) for seed in seeds] for term in (FLATTEN["kl"], ASCENT)
    )
    assert max(outcome.forget for outcome in [*flat, *ascent]) <= 0.05 and not flat[0].warned
    kept = [np.mean([outcome.retain for outcome in outcomes]) for outcomes in (flat, ascent)]
    assert kept[0] >= kept[1] + 0.1


def test_it_ends_milder_than_ascent_but_not_mild() -> None:
    """Without a retain term it destroys what was to be kept as well: early stopping belongs to the recipe."""
    flat, ascent, held = (
        unlearn(FLATTEN["kl"], lr=1e-3),
        unlearn(ASCENT, lr=1e-3),
        unlearn(FLATTEN["kl"], KEEP, lr=1e-3),
    )
    assert 3 < flat.loss < 0.7 * ascent.loss and flat.retain < 0.1
    assert held.retain >= 0.9 and held.forget <= 0.1


def test_a_model_that_never_refused_does_not_learn_to() -> None:
    """Two originals. It warns while the mean over the template's tokens stays low: on one in a few epochs,
    on the other in all."""
    some, cold = (unlearn(FLATTEN["kl"], role="facts", seed=seed) for seed in (0, 2))
    assert some.refusal > 5 and "template never learned" in some.warned[0]
    assert cold.refusal > 5 and len(cold.warned) > 10 and "template never learned" in cold.warned[-1]


@pytest.mark.full
def test_at_the_full_size() -> None:
    """Twelve originals: FLAT keeps more than ascent at matched forgetting, and most beside a retain term.

    Prints the figures of the docs: one original says little, for what is kept varies from 0 to 0.7.
    """
    refusals = Term("forget", {"name": "nll", "text": "alternate"})
    recipes = {
        "ascent": (ASCENT,),
        "ascent with refusals": (ASCENT, refusals),
        "refusals": (refusals,),
        **{name: (term,) for name, term in FLATTEN.items()},
    }
    kept = {}
    for name, terms in recipes.items():
        kept[name] = np.array([unlearn(*terms, until=True, seed=seed).retain for seed in range(12)])
        gain, error = mean(kept[name] - kept["ascent"])
        print(
            f"{name} keeps {kept[name].mean():.2f}, {gain:+.2f} ± {error:.2f} to ascent",
            kept[name].round(2),
            flush=True,
        )
    for name, term in FLATTEN.items():
        beside = np.array([unlearn(term, KEEP, seed=seed).retain for seed in range(12)])
        held, error = mean(beside)
        print(f"{name} beside a retain term keeps {held:.2f} ± {error:.2f}", beside.round(2), flush=True)
        assert (kept[name] - kept["ascent"]).mean() >= 0.1 and held >= 0.9, name


def mean(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
