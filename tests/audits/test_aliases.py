"""Answers with aliases: a figure reads the alias that it comes closest to, training learns the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from handmade import observations_of, with_values

from unremember.audits.attacks import with_prompt
from unremember.audits.continuation import KnowledgeMemorisation
from unremember.audits.model_utility import ModelUtility
from unremember.audits.rouge import Rouge, recall
from unremember.audits.truth_ratio import log_truth_ratios
from unremember.data.split import Split, make_split
from unremember.observe.kinds.generations import Generations
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.registry import audits
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask

ALIASES = [["Bread.", "Ida sells bread and salt."], ["In the town of Osk", "Osk"], ["Nobody", "A painter."]]
MAXIMA = ("probability", "extraction_strength", "exact_memorisation", "verbatim_memorisation")


def alias_split(answers: list[Any], **columns: Any) -> Split:
    """A forget set and a holdout with these answers, in the order of the questions."""
    rows = [{"question": f"What of {i}?", "answer": answer, **columns} for i, answer in enumerate(answers)]
    return make_split({"forget": rows, "holdout": rows})


@pytest.fixture(scope="module")
def artefact(tiny_llama: Any, tokenizer: Any) -> Artefact:
    return Artefact(tiny_llama, LanguageTask.of(tiny_llama, tokenizer))


def observed(artefact: Artefact, audit: Any, split: Split) -> Observations:
    return Store().observe(artefact, split, audit.requests(split), quiet=True)


def per_row(artefact: Artefact, audit: Any, answers: list[Any]) -> np.ndarray:
    return np.asarray(audit.measure(observed(artefact, audit, alias_split(answers)), []).per_example)


@pytest.mark.parametrize("name", MAXIMA)
def test_the_best_alias_counts(name: str, artefact: Artefact) -> None:
    audit = audits.make(
        {"name": name, **({"role": "forget", "limit": 8} if name.startswith("verbatim") else {})}
    )
    single = [per_row(artefact, audit, list(answers)) for answers in zip(*ALIASES)]
    assert per_row(artefact, audit, ALIASES) == pytest.approx(np.maximum(*single), abs=1e-6)
    if name == "probability":
        assert {*np.argmax(single, 0).tolist()} == {0, 1}, "now one alias is likelier, now another"


def test_the_truth_ratio_reads_the_likeliest_alias(artefact: Artefact) -> None:
    audit = audits.make("truth_ratio")
    splits = [
        alias_split(list(answers), perturbed_answers=["Bo.", "A lamp of salt."])
        for answers in (ALIASES, *zip(*ALIASES))
    ]
    best, *single = (log_truth_ratios(observed(artefact, audit, split), "forget") for split in splits)
    assert best == pytest.approx(np.minimum(*single), abs=1e-5)


def test_the_truth_ratio_averages_over_paraphrases(artefact: Artefact) -> None:
    audit, wrong = audits.make("truth_ratio"), {"perturbed_answers": ["Bo.", "A lamp of salt."]}
    texts: list[Any] = [
        ["Bread and salt.", "Salt, and bread too."],
        "Bread and salt.",
        "Salt, and bread too.",
    ]
    splits = [alias_split(["a", "b"], paraphrased_answer=text, **wrong) for text in texts]
    mean, *single = (log_truth_ratios(observed(artefact, audit, split), "forget") for split in splits)
    assert mean == pytest.approx(np.mean(single, 0), abs=1e-5)


def test_membership_reads_the_answer_that_training_learns(artefact: Artefact) -> None:
    audit = audits.make("membership_loss")
    requests = audit.requests(alias_split(ALIASES))
    losses = [
        Store().observe(artefact, alias_split(answers), requests, quiet=True)[requests[0]].loss
        for answers in (ALIASES, [first for first, _ in ALIASES])
    ]
    assert np.array_equal(*losses)
    texts = artefact.task.encode(alias_split(ALIASES), "forget", ["answer"])  # type: ignore[attr-defined]
    assert list(texts["answer"].answers) == [first for first, _ in ALIASES]
    assert artefact.task.sizes(texts, "answer")[1].tolist() == texts["answer"].counts.tolist()  # type: ignore[attr-defined]


def test_generations_are_compared_with_every_alias() -> None:
    split = alias_split([*ALIASES, ["…", "Osk"]])
    spoken = ["Ida sells salt and bread.", "Osk", "a lamp", "Osk"]
    rouge = Rouge().measure(observations_of(split, {}, {"forget": spoken}), [])
    best = [recall("Bread.", spoken[0]), 1.0, recall("A painter.", "a lamp"), 1.0]
    assert rouge.per_example.tolist() == best and best[0] > recall("Ida sells bread and salt.", spoken[0])
    observations = with_values(observations_of(split, {}), {Generations("forget", 32): spoken})
    f1 = KnowledgeMemorisation("forget").measure(observations, [])
    assert f1.per_example.tolist() == pytest.approx([0.6, 1, 0.5, 1])


def test_utility_reads_aliases(artefact: Artefact) -> None:
    split = make_split(
        {"kept": alias_split(ALIASES, perturbed_answers=["Bo.", "A lamp."])["forget"].rows}, utility=["kept"]
    )
    figure = ModelUtility().measure(observed(artefact, ModelUtility(), split), [])
    assert figure.n == 3 and set(figure.extra["parts"]) == {
        "kept probability",
        "kept rouge",
        "kept truth_ratio",
    }


def test_an_attack_keeps_the_aliases_of_a_whole_answer(artefact: Artefact) -> None:
    row = alias_split(ALIASES)["forget"].rows[0]
    assert with_prompt(row, artefact.task)["answer_aliases"] == ["Ida sells bread and salt."]
    assert "answer_aliases" not in with_prompt(row, artefact.task, begun="Ida", answer=" sells bread.")
