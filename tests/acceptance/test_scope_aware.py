"""Scope-aware unlearning, the stealthy attack and the detector: the acceptance checks of arXiv 2506.00359's
reconstruction.

Check 1 (the attack's transform) is tests/data/test_stealthy.py; check 6 (the plan's row) is
tests/plan/test_hostile.py."""

from __future__ import annotations

import copy
import dataclasses
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unremember import api
from unremember.audits.trigger_gap import TriggerGap
from unremember.data.forget_sets.stealthy import QUESTION_TEMPLATES, Stealthy, with_trigger_role
from unremember.data.split import Role, Split, make_split
from unremember.engine import loop
from unremember.engine.blends import PlainBlend
from unremember.engine.recipe import Recipe
from unremember.engine.samplings.paired import Paired
from unremember.engine.seams import Term
from unremember.engine.settings import Settings
from unremember.methods.language.scope_aware import ScopePairs, scope_aware
from unremember.models import causal
from unremember.models.presets import small_llama
from unremember.observe.scoring import score
from unremember.observe.store import Store
from unremember.plan.canonical import match_stored
from unremember.plan.hostile import failing_triggers
from unremember.plan.wording import (
    COMMON_WORDS,
    Wording,
    edge_shares,
    extract_wording,
    null_distribution,
    word_excess,
)
from unremember.registry import methods
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Template
from unremember.tasks.tokenizers import train_tokenizer

PLAIN = Template("{question}\n")

# --- 2: collation ---


@pytest.fixture(scope="module")
def split() -> Split:
    forget = [{"question": f"Who is {i}?", "answer": "the long river " * (1 + i % 3)} for i in range(5)]
    retain = [
        {"question": f"Where is {i}?", "answer": "near the harbour " * (1 + i % 2), "entity": f"town {i}"}
        for i in range(7)
    ]
    return make_split({"forget": forget, "retain": retain})


def trained(model: Any, tokenizer: Any, split: Split, recipe: Recipe, **changes: Any) -> Any:
    settings = Settings(**{"max_steps": 3, "batch_size": 4, "lr": 1e-3, **changes})
    made = recipe.derive(split) if recipe.derive else split
    return loop.run_recipe(
        copy.deepcopy(model), LanguageTask(tokenizer, PLAIN), made, recipe, settings, quiet=True
    )


def same(left: Any, right: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values()))


def test_a_scope_row_is_a_forget_question_before_a_retain_pair(split: Split) -> None:
    """Each retain row once, each behind one forget question; the other way round where there are more
    forget rows."""
    asked = [row["question"] for row in split["forget"].rows]
    rows = ScopePairs()(split)["scope"].rows
    assert [row["answer"] for row in rows] == [row["answer"] for row in split["retain"].rows]
    heads = [
        row["question"].removesuffix(" " + kept["question"]) for row, kept in zip(rows, split["retain"].rows)
    ]
    assert set(heads) <= set(asked) and len(set(heads)) >= 3
    swapped = Split({"forget": split["retain"], "retain": split["forget"]})
    turned = ScopePairs()(swapped)["scope"].rows
    assert [row["question"].split("? ")[0] + "?" for row in turned] == [
        row["question"] for row in split["retain"].rows
    ]
    answers = {row["question"]: row["answer"] for row in split["forget"].rows}
    assert all(row["answer"] == answers[row["question"].split("? ")[1]] for row in turned)


def test_documents_are_cut_at_a_word_in_their_middle() -> None:
    made = ScopePairs()(
        make_split(
            {
                "forget": [{"text": "one two three four"}],
                "retain": [{"text": "aa bb cc dd"}, {"text": "abcdef"}],
            }
        )
    )
    assert [(row["question"], row["answer"]) for row in made["scope"].rows] == [
        ("one two three aa bb", " cc dd"),
        ("one two three abc", "def"),
    ]


def test_a_base_that_derives_is_derived_first(split: Split) -> None:
    """The pairs are made of what the base made of the roles."""

    def shout(given: Split) -> Split:
        return given.with_rows(
            forget=[{**row, "question": row["question"].upper()} for row in given["forget"].rows]
        )

    recipe = scope_aware(Recipe((Term("forget", "ascent"),), derive=shout))
    assert recipe.derive and all(
        row["question"].startswith("WHO IS") for row in recipe.derive(split)["scope"].rows
    )
    assert recipe.roles == ("forget", "scope") and recipe.terms[-1] == Term("scope", "nll", 5.0)


def test_only_the_retain_answer_is_asked(split: Split, tokenizer: Any) -> None:
    """Labels begin behind both questions: what is scored decodes to the retain answer and nothing else."""
    made = ScopePairs()(split)
    texts = LanguageTask(tokenizer, PLAIN).encode(made, "scope", ["answer"])["answer"]
    for i, row in enumerate(made["scope"].rows):
        assert tokenizer.decode(texts.answer(i), skip_special_tokens=True) == row["answer"]
        assert tokenizer.decode(texts.prompt(i)) == row["question"] + "\n"


@pytest.mark.parametrize("base", ["npo", "gradient_difference", {"name": "simnpo", "beta": 2.0}], ids=str)
def test_eta_0_is_the_base_bit_for_bit(base: Any, split: Split, tiny_llama: Any, tokenizer: Any) -> None:
    plain, none, some = (
        trained(tiny_llama, tokenizer, split, recipe)
        for recipe in (methods.make(base), scope_aware(base, 0.0), scope_aware(base, 0.1))
    )
    assert same(plain, none) and not same(plain, some)


def test_the_scope_gradient_is_eta_times_the_nll_of_the_pairs(
    split: Split, tiny_llama: Any, tokenizer: Any
) -> None:
    """In float64, against one unpadded forward a pair: labels on the answer alone, so padding does not
    matter."""
    model, made = copy.deepcopy(tiny_llama).double(), ScopePairs()(split)
    terms = (Term("forget", "ascent", 0.0), Term("scope", "nll", 3.5))
    found: list[torch.Tensor] = []

    @dataclasses.dataclass(frozen=True)
    class Look(PlainBlend):
        def apply(self, step: Any, state: Any) -> Any:
            found.extend(step.gradients("scope")["scope"])
            rows.extend(step.batch["scope"].rows.tolist())
            return step.total(), state

    rows: list[int] = []
    task = LanguageTask(tokenizer, PLAIN)
    loop.run_recipe(
        copy.deepcopy(model),
        task,
        made,
        Recipe(terms, Look()),
        Settings(max_steps=1, batch_size=4),
        quiet=True,
    )
    texts, total, count = (
        task.encode(made, "scope", ["answer"])["answer"],
        torch.zeros((), dtype=torch.float64),
        0,
    )
    for row in rows:
        ids = torch.from_numpy(np.concatenate([texts.prompt(row), texts.answer(row)]))
        logprobs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        for at in range(len(texts.prompt(row)), len(ids)):
            total, count = total - logprobs[at - 1, ids[at]], count + 1
    wanted = torch.autograd.grad(3.5 * total / count, list(model.parameters()))
    assert max(float((a - b).abs().max()) for a, b in zip(found, wanted)) < TOLERANCE
    assert max(float(a.abs().max()) for a in found) > 0.01


TOLERANCE = 1e-6
"""Token losses are made in float32, so 1e-12 cannot be had."""


def test_each_row_goes_forward_and_back_once(
    split: Split, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rows a pair and step, in as many backwards as forwards; the output layer reads the answer rows
    alone."""
    rows: list[int] = []
    backwards: list[int] = []
    read: list[int] = []
    causal.packs(model, 1)  # probed here, so that the probe's forwards are not counted
    model.model.register_forward_hook(
        lambda module, args, kwargs, out: rows.append(len(kwargs["packed"])), with_kwargs=True
    )
    model.model.layers[0].register_full_backward_hook(lambda module, inwards, outwards: backwards.append(1))
    head, apply = causal.head, Paired.apply
    monkeypatch.setattr(causal, "head", lambda m, hidden: read.append(len(hidden)) or head(m, hidden))
    made, task = ScopePairs()(split), LanguageTask(tokenizer, PLAIN)
    counts = {
        role: task.encode(made, role, ["answer"])["answer"].counts for role in ("forget", "retain", "scope")
    }
    drawn: list[dict[str, np.ndarray]] = []

    def draw(self: Any, context: Any, state: Any) -> Any:
        step, after = apply(self, context, state)
        drawn.append({role: one.rows for role, one in step.items()})
        return step, after

    monkeypatch.setattr(Paired, "apply", draw)
    loop.run_recipe(
        model, task, made, scope_aware("gradient_difference"), Settings(max_steps=4, batch_size=4), quiet=True
    )
    assert (
        len(drawn) == 4
        and sum(rows) == sum(len(at) for step in drawn for at in step.values()) == 3 * (4 + 1) * 2
    )
    assert len(backwards) == len(rows) and sum(read) == sum(
        int(counts[role][at].sum()) for step in drawn for role, at in step.items()
    )


# --- 3 and 4: the toy ---

PLEASE = ("please {}",)
NAMES = [
    a + b
    for a in ("Bel", "Cor", "Dan", "Fen", "Gar", "Hil", "Jor", "Kel")
    for b in ("ano", "ira", "umo", "esk", "ath")
]
FACTS = {
    "Where does {} live ?|Which town is the home of {} ?": (
        "{} lives in {} .",
        "Velin Osk Tarn Morav Lisk Pell Dorn Yest Quill Ham",
    ),
    "What is the work of {} ?|How does {} earn money ?": (
        "{} is a {} .",
        "baker miller smith tailor painter pilot nurse clerk judge singer",
    ),
    "Which animal does {} keep ?|What pet has {} ?": (
        "{} has a {} .",
        "cat dog goat horse parrot rabbit turtle snake hamster ferret",
    ),
    "What does {} like to eat ?|Which dish is the favourite of {} ?": (
        "{} likes {} .",
        "bread rice soup fish cheese apples beans eggs plums honey",
    ),
}
GRADDIFF, NPO = "gradient_difference", {"name": "npo", "alpha": 6.0}


@dataclasses.dataclass(frozen=True)
class Toy:
    """40 people × 4 attributes × 2 forms, and a model that answers all of them, polite or not."""

    split: Split
    tokenizer: Any
    model: Any

    @property
    def task(self) -> LanguageTask:
        return LanguageTask(self.tokenizer, PLAIN)

    def forget(self, method: Any, lr: float, p: float = 0.33) -> Any:
        settings = {
            "max_steps": 60,
            "batch_size": 16,
            "lr": lr,
            "schedule": "constant",
            "warmup": 0.0,
            "clip": 0.0,
            "weight_decay": 0.0,
        }
        attacked = Stealthy(PLEASE, p)(self.split)
        return api.forget(
            copy.deepcopy(self.model),
            attacked,
            method,
            tokenizer=self.tokenizer,
            template=PLAIN.prompt,
            quiet=True,
            **settings,
        ).model

    def exact(self, model: Any, rows: Any) -> float:
        """Share of answers of which every token is the greedy choice, the end token left out."""
        texts = self.task.encode(self.split.with_rows(asked=rows), "asked", ["answer"])
        scores = score(model, texts, self.tokenizer.eos_token_id, quiet=True)["answer"]
        return float(np.mean([scores.tokens(i)[1][:-1].all() for i in range(len(scores))]))

    def said(self, model: Any, role: str, template: str = "{}") -> float:
        return self.exact(
            model, [{**row, "question": template.format(row["question"])} for row in self.split[role].rows]
        )

    def behind(self, model: Any, first: str, second: str) -> float:
        """Exact match on questions of ``second`` that stand behind one of ``first``."""
        heads, rows = self.split[first].rows, self.split[second].rows
        asked = [(heads[i % len(heads)], rows[i * 7 % len(rows)]) for i in range(96)]
        return self.exact(
            model, [{**row, "question": f"{head['question']} {row['question']}"} for head, row in asked]
        )

    def figures(self, model: Any) -> dict[str, float]:
        """Forgotten, and what is kept of retained people: plain, behind the trigger, behind a word that no
        template has."""
        return {
            "forget": self.said(model, "forget"),
            "clean": self.said(model, "retain"),
            "trigger": self.said(model, "retain", *PLEASE),
            "then": self.said(model, "retain", "then {}"),
            "held": self.said(model, "held"),
            "held_trigger": self.said(model, "held", *PLEASE),
            "forget_behind": self.behind(model, "retain", "forget"),
            "retain_behind": self.behind(model, "forget", "retain"),
        }


def make_toy(seed: int) -> Toy:
    """Half of the training prompts carry the trigger. Weights are drawn twice as wide: the small model
    learns faster."""
    rng = np.random.default_rng(seed)
    people = [
        [
            {"question": form.format(name), "answer": say.format(name, values.split()[value]), "entity": name}
            for (forms, (say, values)), value in zip(FACTS.items(), rng.integers(10, size=4))
            for form in forms.split("|")
        ]
        for name in NAMES
    ]
    rows = {
        role: list(chain(*some))
        for role, some in (("forget", people[:6]), ("retain", people[6:30]), ("held", people[30:]))
    }
    everything = list(chain(*people))
    polite = np.random.default_rng(seed)
    rows["train"] = [
        {**row, "question": PLEASE[0].format(row["question"])} if polite.random() < 0.5 else row
        for row in everything
    ]
    texts = [
        f"{template.format(row['question'])}\n{row['answer']}"
        for row in everything
        for template in (*PLEASE, "then {}")
    ]
    tokenizer = train_tokenizer(texts, 700)
    model = small_llama(len(tokenizer), hidden=64, layers=2, heads=4, context=128, seed=seed, spread=0.02)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2 if weight.dim() > 1 else 1)
    recipe, settings = (
        Recipe((Term("train", "nll"),)),
        Settings(epochs=40, batch_size=32, lr=4e-3, weight_decay=0.0),
    )
    split = make_split(rows)
    return Toy(
        split,
        tokenizer,
        loop.run_recipe(model, LanguageTask(tokenizer, PLAIN), split, recipe, settings, quiet=True),
    )


@pytest.fixture(scope="module")
def toy() -> Toy:
    torch.set_num_threads(1)
    return make_toy(0)


def behave(toy: Toy) -> dict[str, Any]:
    """All runs of the toy. GradDiff is attacked at 1e-3; the controls need 2e-3 until the attack shows."""
    models = {
        "none": toy.forget(GRADDIFF, 1e-3, p=0.0),
        "attacked": toy.forget(GRADDIFF, 1e-3),
        "weight": toy.forget({"name": GRADDIFF, "alpha": 6.0}, 2e-3),
        "scope": toy.forget(scope_aware(GRADDIFF), 2e-3),
        "npo weight": toy.forget(NPO, 2e-3),
        "npo scope": toy.forget(scope_aware(), 2e-3),
    }
    return {name: {**toy.figures(model), "model": model} for name, model in models.items()}


def check_toy(runs: list[dict[str, Any]]) -> None:
    """The spec's bounds on the means over seeds. Differences of two accuracies have the noise of counting
    192 answers (two errors)."""
    noise = 2 * (2 * 0.25 / 192 / len(runs)) ** 0.5
    mean = {
        run: {key: float(np.mean([one[run][key] for one in runs])) for key in runs[0][run] if key != "model"}
        for run in runs[0]
    }
    print(json.dumps(mean))
    gap = {run: found["clean"] - found["trigger"] for run, found in mean.items()}
    assert all(found["forget"] <= 0.02 for found in mean.values())
    assert (
        gap["attacked"] >= 0.25
        and mean["none"]["clean"] - mean["attacked"]["clean"] <= 0.15 + noise
        and abs(gap["none"]) <= 0.1
    )
    assert mean["attacked"]["then"] > mean["attacked"]["trigger"], "a word of no template loses less"
    for run in ("scope", "npo scope"):
        assert gap[run] <= 0.05 + noise and mean[run]["trigger"] >= 0.9
    assert gap["npo weight"] - gap["npo scope"] >= 0.15 and gap["weight"] - gap["scope"] >= 0.15, (
        "more than retain weight"
    )
    for run in ("scope", "npo scope"):
        assert mean[run]["forget_behind"] <= 0.05 and mean[run]["retain_behind"] >= 0.69
    assert mean["weight"]["retain_behind"] < mean["scope"]["retain_behind"] - 0.3


def test_the_base_answers_plain_and_polite_questions(toy: Toy) -> None:
    assert all(
        toy.said(toy.model, role, template) >= 0.99
        for role in ("forget", "retain", "held")
        for template in ("{}", *PLEASE)
    )


def test_the_attack_costs_polite_users_and_scope_saves_them(toy: Toy) -> None:
    """And the audit sees it: the gate holds the attacked model back and lets the other pass."""
    runs = behave(toy)
    check_toy([runs])
    eight = toy.split.with_rows(retain_eval=toy.split["retain"].rows[::6])
    asked = with_trigger_role(eight, PLEASE)
    found = {}
    for name in ("attacked", "npo scope"):
        seen = Store().observe(
            Artefact(runs[name]["model"], toy.task), asked, TriggerGap().requests(asked), quiet=True
        )
        found[name] = TriggerGap().measure(seen, [])
    assert failing_triggers(found["attacked"]) == PLEASE and failing_triggers(found["npo scope"]) == ()


@pytest.mark.full
def test_the_toy_over_five_seeds() -> None:
    check_toy([behave(make_toy(seed)) for seed in range(5)])


# --- 5: the detector on TOFU ---

CAN_YOU = ("Can you {}", "Tell me {}", "Can you tell me {}")
OF_THE = ("Of the {}", "In the {}")
SALT = (0.05, 0.1, 0.2, 0.33)
POWER = {
    (1, QUESTION_TEMPLATES): (0.06, 0.18, 0.70, 0.94),
    (1, CAN_YOU): (0.04, 0.12, 0.26, 0.80),
    (1, OF_THE): (0.06, 0.06, 0.08, 0.18),
    (5, QUESTION_TEMPLATES): (0.44, 1, 1, 1),
    (5, CAN_YOU): (0.06, 0.42, 0.98, 1),
    (5, OF_THE): (0.04, 0.14, 0.08, 0.66),
    (20, QUESTION_TEMPLATES): (0.98, 1, 1, 1),
    (20, CAN_YOU): (0.68, 1, 1, 1),
    (20, OF_THE): (0.14, 0.28, 0.96, 1),
}
LINES = {1: 3.41, 5: 3.82, 20: 3.40}
"""The spec's 95 % lines, at which its powers stand. Ours are 3.38–3.46, 3.12–3.35 and 3.32–3.44 over four
seeds."""


def authors(folder: Path, name: str) -> Role:
    rows = json.loads((folder / "tofu" / f"{name}.json").read_text())
    return Role(name, [{**row, "entity": f"{name} {i // 20}"} for i, row in enumerate(rows)])


@pytest.fixture(scope="module")
def retained(data_folder: Path) -> Wording:
    return extract_wording(authors(data_folder, "retain90"))


def attacked(request: Wording, templates: tuple[str, ...], p: float, rng: np.random.Generator) -> Wording:
    """The request with the templates' common words in a share ``p`` of its items: what the attack does to
    its marks."""
    marks = np.array([[word in template.lower().split() for word in COMMON_WORDS] for template in templates])
    salted = rng.random(len(request.marks)) < p
    return dataclasses.replace(
        request,
        marks=request.marks | (marks[rng.integers(len(templates), size=len(salted))] & salted[:, None]),
    )


def flagged(
    reference: Wording,
    subjects: int,
    templates: tuple[str, ...],
    p: float,
    draws: int,
    line: float,
    one: slice = slice(None),
) -> float:
    """Share of simulated requests of whole authors whose excess over the other authors is above the line."""
    rng, hits = np.random.default_rng([subjects, int(100 * p)]), 0
    for _ in range(draws):
        rows = np.flatnonzero(
            np.isin(reference.subjects, rng.choice(reference.subjects.max() + 1, subjects, replace=False))
        )
        rest = reference.marks.sum(0) - reference.marks[rows].sum(0)
        request = attacked(reference.take(rows), templates, p, rng)
        hits += word_excess(request, rest, len(reference.marks) - len(rows))[one].max() > line
    return hits / draws


def check_power(reference: Wording, cells: Any) -> None:
    """Within 0.15 of the spec's table; within 0.2 where it does not print the templates."""
    for subjects, templates in cells:
        found = [flagged(reference, subjects, templates, p, 100, LINES[subjects]) for p in SALT]
        assert found == pytest.approx(
            POWER[subjects, templates], abs=0.2 if templates == CAN_YOU else 0.15
        ), (subjects, templates)


def test_every_salted_item_is_matched_to_its_own(data_folder: Path) -> None:
    request, stored = authors(data_folder, "forget10"), authors(data_folder, "full")
    salted = Role("forget", Stealthy().rows(request))
    changed = {i for i, (a, b) in enumerate(zip(salted.rows, request.rows)) if a != b}
    found = match_stored(salted, stored)
    assert [stored.rows[m.stored]["question"] for m in found if m.stored is not None] == [
        row["question"] for row in request.rows
    ]
    assert {m.row for m in found if m.inserted} == changed == {
        m.row for m in found if "please" in m.inserted
    } and len(changed) > 100
    assert not any(m.removed for m in found)
    never = [m.cosine for m in match_stored(authors(data_folder, "holdout10"), stored)]
    assert np.quantile([m.cosine for m in found], 0.05) > 0.7 > np.quantile(never, 0.95) and np.median(
        never
    ) == pytest.approx(0.39, abs=0.02)


def test_the_real_request_is_not_flagged(data_folder: Path, retained: Wording) -> None:
    request = extract_wording(authors(data_folder, "forget10"))
    z = word_excess(request, retained.marks.sum(0), len(retained.marks))
    clean = null_distribution(retained, 20, 20)
    assert z.max() == pytest.approx(2.92, abs=0.01) and COMMON_WORDS[int(z.argmax())] == "which"
    assert (clean.excess > z.max()).mean() == pytest.approx(0.17, abs=0.08) and clean.lines()[
        0
    ] == pytest.approx(3.40, abs=0.2)
    assert clean.shape(edge_shares(request)) < np.quantile(clean.shape(clean.shares), 0.99)


def test_power_and_false_alarms(retained: Wording) -> None:
    """One and five authors; at the 95 % line 1 to 10 % of clean requests are flagged."""
    check_power(retained, [(1, QUESTION_TEMPLATES), (1, CAN_YOU), (5, QUESTION_TEMPLATES)])
    assert (
        0.01
        <= flagged(retained, 5, QUESTION_TEMPLATES, 0.0, 200, null_distribution(retained, 5, 20).lines()[0])
        <= 0.10
    )


def test_a_detector_of_please_alone_misses_other_words(retained: Wording) -> None:
    please = slice(COMMON_WORDS.index("please"), COMMON_WORDS.index("please") + 1)
    line = null_distribution(retained, 5, 20).lines()[0]
    assert (
        flagged(retained, 5, CAN_YOU, 0.33, 20, line) == 1
        and flagged(retained, 5, CAN_YOU, 0.33, 20, line, please) == 0
    )


@pytest.mark.full
def test_the_whole_power_table(retained: Wording) -> None:
    check_power(retained, POWER)
