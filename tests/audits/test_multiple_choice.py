"""Multiple choice by hand, against lm-eval itself, and with letters of several tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unremember.audits.lm_eval import LmEval
from unremember.audits.multiple_choice import ABSTAINS, BELOW_CHANCE, MultipleChoice, letter_logprobs
from unremember.data.choices import LETTERS, choice_prompt, choice_prompts, cyclic_prompts
from unremember.data.split import Split, make_split
from unremember.errors import DataError
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations, TokenRecords
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask

ITEMS = [
    {"question": f"{word} is it?", "choices": ["a lamp", "the river", "bread", "Velin"], "answer": i % 4}
    for i, word in enumerate(("Who", "What", "Where", "When", "Which", "Why"))
]


def split_of(rows: Any) -> Split:
    return make_split({"questions": rows})


def measured(logs: np.ndarray, split: Split) -> Any:
    """The audit on given log-probabilities [n, 4] of letters of one token, each followed by the end token."""
    n = logs.size
    flat = np.stack([logs.ravel(), np.full(n, -9.0)], 1).ravel().astype(np.float32)
    rows, offsets, texts = (
        np.repeat(np.arange(len(logs)), 4),
        np.arange(0, 2 * n + 1, 2),
        list(LETTERS) * len(logs),
    )
    records = TokenRecords(rows, offsets, flat, np.zeros(2 * n, bool), np.ones(n, bool), texts)
    values = {TokenScores("questions", "letters"): records}
    return MultipleChoice().measure(Observations("m", "m", split, values), [])


def test_the_prompt_is_lm_evals_and_each_option_stands_at_each_letter() -> None:
    rows = cyclic_prompts(" Who? ", ["p", "q", "r", "s"], 2)
    assert (
        rows[0]["prompt"] == "Who?\nA. p\nB. q\nC. r\nD. s\nAnswer:"
        and rows[1]["prompt"] == "Who?\nA. q\nB. r\nC. s\nD. p\nAnswer:"
    )
    assert [row["gold"] for row in rows] == [2, 1, 0, 3] and [row["answer"] for row in rows] == [
        " C",
        " B",
        " A",
        " D",
    ]
    with pytest.raises(DataError, match="bio: row 1"):
        choice_prompts([ITEMS[0], {"question": "?", "choices": ["a"] * 4}], "bio")


def test_by_hand() -> None:
    """The metric's definition: 2 of 3 right; shares .528975, .349947, .481778."""
    logs = np.array([[-1.2, -0.3, -2.0, -1.5], [-0.5, -0.4, -0.9, -3.0], [-2.0, -2.2, -1.9, -1.0]])
    split = split_of([choice_prompt("?", list("pqrs"), gold, turn=0, entity=str(gold)) for gold in (1, 0, 3)])
    figure = measured(logs, split)
    assert (
        figure.value == pytest.approx(2 / 3)
        and figure.per_example.tolist() == [1.0, 0.0, 1.0]
        and figure.extra["as_given"] == pytest.approx(2 / 3)
    )
    assert figure.extra["gold_share"] == pytest.approx(np.mean([0.528975, 0.349947, 0.481778]), abs=1e-6)
    assert (
        figure.extra["option_mass"] == pytest.approx(np.exp(logs).sum(1).mean(), abs=1e-6)
        and figure.name == "multiple_choice questions"
    )


def test_all_tokens_of_a_letter_count_but_not_the_end() -> None:
    """Texts of two tokens and of one, three with an end token: it stays out of the sum."""
    flat = np.array([-1, -2, -50, -3, -4, -50, -5, -50, -6], dtype=np.float32)
    records = TokenRecords(
        np.zeros(4, int),
        np.array([0, 3, 6, 8, 9]),
        flat,
        np.zeros(9, bool),
        np.array([True, True, True, False]),
        list(LETTERS),
    )
    assert letter_logprobs(records).tolist() == [[-3.0, -7.0, -5.0, -6.0]]


def test_a_model_without_preference_and_one_with_are_right_in_one_of_four() -> None:
    """Acceptance 1: uniform letters 25 ± 4 %, a preferred letter exactly 25 %, an oracle 100 %, one that
    avoids the truth 0 and noted."""
    rows = [
        row for i in range(300) for row in cyclic_prompts(f"{i}?", list("pqrs"), i * i % 4, entity=str(i))
    ]
    split, gold = split_of(rows), np.array([row["gold"] for row in rows])
    noise = np.random.default_rng(0).normal(size=(1200, 4))
    assert measured(noise - 2, split).value == pytest.approx(0.25, abs=0.04)
    assert measured(np.full((1200, 4), -1.4), split).value == 0.25
    for letter in range(4):
        assert measured(np.where(np.arange(4) == letter, -0.1, -4.0) + noise / 10, split).value == 0.25
    knows = measured(np.where(np.arange(4) == gold[:, None], -0.1, -4.0), split)
    avoids = measured(np.where(np.arange(4) == gold[:, None], -9.0, -4.0), split)
    assert (
        (knows.value, knows.note) == (1.0, "")
        and avoids.value == 0.0
        and avoids.note == f"{BELOW_CHANCE}; {ABSTAINS}"
    )


def test_a_model_that_is_not_finite_has_no_value() -> None:
    figure = measured(np.full((4, 4), np.nan), split_of(cyclic_prompts("?", list("pqrs"), 1, entity="0")))
    assert figure.value is None and figure.skipped == {"no value": 4}


@torch.no_grad()
def test_it_reads_what_a_plain_forward_says(tiny_llama: Any, tokenizer: Any) -> None:
    """The summed log-probability of each letter's own tokens.

    In this vocabulary of 300 a letter is a space and a letter.
    """
    assert (
        len(tokenizer(" A")["input_ids"]) == 2
        and tokenizer("Answer: A")["input_ids"][-2:] == tokenizer(" A")["input_ids"]
    )
    rows = choice_prompts(ITEMS, "bio")
    split = split_of(rows)
    artefact = Artefact(tiny_llama, LanguageTask(tokenizer, context=128))
    observations = Store().observe(artefact, split, MultipleChoice().requests(split), quiet=True)
    logs = letter_logprobs(observations[TokenScores("questions", "letters")])
    for i in (0, 5, 23):
        head = tokenizer(rows[i]["prompt"])["input_ids"]
        for k, letter in enumerate(LETTERS):
            ids = torch.tensor([*head, *tokenizer(letter)["input_ids"]])
            odds = tiny_llama(input_ids=ids[None]).logits[0].log_softmax(-1)
            assert logs[i, k] == pytest.approx(
                float(odds[range(len(head) - 1, len(ids) - 1), ids[len(head) :]].sum()), abs=1e-4
            )


def test_in_the_order_as_given_it_is_lm_eval(tiny_llama: Any, tokenizer: Any, tmp_path: Path) -> None:
    """lm-eval runs a task of WMDP's form on the same six questions: right and wrong in the same places."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'unremember[eval]'")
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    (tmp_path / "proxy.yaml").write_text(
        "task: proxy\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path / 'docs.jsonl'}\ntest_split: test\n"
        'output_type: multiple_choice\ndescription: "About lamps.\\n\\n"\n'
        'doc_to_text: "{{question.strip()}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\n'
        'C. {{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"\n'
        'doc_to_choice: ["A", "B", "C", "D"]\ndoc_to_target: answer\nnum_fewshot: 0\n'
        "metric_list:\n  - metric: acc\n"
    )
    split, ours, theirs = (
        split_of(choice_prompts(ITEMS, "bio", "About lamps.\n\n")),
        MultipleChoice(),
        LmEval("proxy", folder=str(tmp_path)),
    )
    artefact = Artefact(tiny_llama, LanguageTask(tokenizer))
    observations = Store().observe(
        artefact, split, [*ours.requests(split), *theirs.requests(split)], quiet=True
    )
    figure = ours.measure(observations, [])
    assert figure.per_example[::4].tolist() == theirs.measure(observations, []).per_example.tolist()
