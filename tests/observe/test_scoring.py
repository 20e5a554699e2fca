"""Scoring through shared prompts and beginnings equals reading one text at a time, on every architecture."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, GPTNeoConfig

from architectures import configs
from unremember.data.split import Split, make_split
from unremember.models import causal
from unremember.models.presets import fresh_model
from unremember.observe import scoring
from unremember.observe.records import TokenRecords
from unremember.observe.scoring import score
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Texts

END = 0
TINY = configs(vocabulary=300, width=32, inner=48, depth=2, heads=2, context=128)
CONFIGS = {name: TINY[name]() for name in ("llama", "gpt2", "gpt-neox", "qwen2", "phi", "gemma")} | {
    "mistral": TINY["mistral"](sliding_window=None),
    "mistral with a window": TINY["mistral"](sliding_window=8),
}
ROWS = [
    {
        "question": "Who wrote the quiet river?",
        "answer": "Ida Morn wrote it.",
        "paraphrased_answer": "Ida Morn wrote the river.",
        "perturbed_answers": ["Ida Morn sold it.", "Ole Fint wrote it.", "Ida"],
    },
    {
        "question": "Where?",
        "answer": "In Velin.",
        "paraphrased_answer": "In Velin.",
        "perturbed_answers": ["In Velin, in Osk.", "Bread"],
    },
    {
        "question": "What does <|endoftext|> the baker sell, and where was she born?",
        "answer": "Bread, salt and small lamps.",
        "paraphrased_answer": "Small lamps",
        "perturbed_answers": ["Bread, salt and small", "Bread"],
    },
]
COLUMNS = ("answer", "paraphrased_answer", "perturbed_answers")


@pytest.fixture
def split() -> Split:
    return make_split({"forget": ROWS})


@pytest.fixture
def task(tokenizer: Any) -> LanguageTask:
    return LanguageTask(tokenizer)


def lively(config: Any) -> Any:
    """A float64 model whose logits are far from flat."""
    model = fresh_model(config, 0).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(4.0 if "embed" not in name else 2.0)
    return model


def naive(model: Any, texts: Texts) -> list[tuple[np.ndarray, np.ndarray]]:
    """(log-probabilities, greedy ids) of each text.

    One sequence at a time through the whole model, no padding.
    """
    records = []
    for i in range(len(texts)):
        ids = torch.from_numpy(texts.ids[texts.offsets[i] : texts.offsets[i + 1]])[None]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0].double()
        rows = logits[int(texts.starts[i]) - 1 : -1]
        labels = torch.from_numpy(texts.answer(i))
        records.append(
            (rows.log_softmax(-1).gather(1, labels[:, None])[:, 0].numpy(), rows.argmax(-1).numpy())
        )
    return records


@pytest.mark.parametrize("span", [causal.SPAN, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_scores_as_one_text_at_a_time(
    name: str, span: int, split: Split, task: LanguageTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal, "SPAN", span)
    model, columns = lively(CONFIGS[name]), task.encode(split, "forget", COLUMNS)
    records = score(model, columns, END, quiet=True)
    for column, texts in columns.items():
        for i, (logprobs, greedy) in enumerate(naive(model, texts)):
            logprobs_of, matches = records[column].tokens(i)
            assert np.abs(logprobs_of - logprobs).max() < 2e-6, (column, i)
            span_of = slice(int(records[column].offsets[i]), int(records[column].offsets[i + 1]))
            assert records[column].greedy[span_of].tolist() == greedy.tolist()
            assert matches.tolist() == (greedy == texts.answer(i)).tolist()


def test_a_tree_holds_each_beginning_once(split: Split, task: LanguageTask) -> None:
    columns = task.encode(split, "forget", COLUMNS)
    for row, question in enumerate(scoring.build_questions(columns)):
        prompt = columns["answer"].prompt(row).tolist()
        answers = [
            texts.answer(i).tolist() for texts in columns.values() for i in np.flatnonzero(texts.rows == row)
        ]
        beginnings = {tuple(ids[:k]) for ids in answers for k in range(1, len(ids))}
        assert question.size == len(prompt) + len(beginnings)
        assert question.ids[: len(prompt)].tolist() == prompt


def same(left: TokenRecords, right: TokenRecords) -> bool:
    return (
        np.array_equal(left.rows, right.rows)
        and np.array_equal(left.offsets, right.offsets)
        and np.array_equal(left.matches, right.matches)
        and float(np.abs(left.logprobs - right.logprobs).max()) < 1e-6
    )


@pytest.mark.parametrize("budget", [1, 64, 100_000])
def test_the_size_of_a_batch_does_not_matter(
    budget: int, monkeypatch: pytest.MonkeyPatch, split: Split, task: LanguageTask
) -> None:
    model, columns = lively(CONFIGS["llama"]), task.encode(split, "forget", COLUMNS)
    usual = score(model, columns, END, quiet=True)
    monkeypatch.setattr(scoring.batches, "__defaults__", (budget,))
    sizes = [len(batch) for batch in scoring.batches(scoring.build_questions(columns))]
    assert sizes == {1: [1, 1, 1], 64: [1, 1, 1], 100_000: [3]}[budget]
    second = score(model, columns, END, quiet=True)
    assert all(same(usual[c], second[c]) for c in COLUMNS)


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_the_order_of_rows_does_not_matter(order: tuple[int, ...], split: Split, task: LanguageTask) -> None:
    model = lively(CONFIGS["gpt2"])
    usual = score(model, task.encode(split, "forget", ["answer"]), END, quiet=True)["answer"]
    turned = make_split({"forget": [ROWS[i] for i in order]})
    second = score(model, task.encode(turned, "forget", ["answer"]), END, quiet=True)["answer"]
    for new, old in enumerate(order):
        assert np.abs(second.tokens(new)[0] - usual.tokens(old)[0]).max() < 1e-6


def test_an_end_token_inside_a_prompt_masks_nothing(split: Split, task: LanguageTask) -> None:
    texts = task.encode(split, "forget", ["answer"])["answer"]
    assert END in texts.prompt(2)[1:-1].tolist()
    model = lively(CONFIGS["llama"])
    alone = score(
        model, task.encode(make_split({"forget": [ROWS[2]]}), "forget", ["answer"]), END, quiet=True
    )["answer"]
    together = score(model, {"answer": texts}, END, quiet=True)["answer"]
    assert np.abs(alone.logprobs - together.tokens(2)[0]).max() < 1e-6
    assert np.abs(alone.logprobs - naive(model, texts)[2][0]).max() < 2e-6


def test_documents_are_scored_from_their_second_token(task: LanguageTask) -> None:
    split = make_split({"forget": [{"text": "Ida Morn wrote it in Velin."}, {"text": "Bread"}]})
    texts = task.encode(split, "forget", ["text"])["text"]
    assert texts.starts.tolist() == [1, 1]
    model = lively(CONFIGS["gpt-neox"])
    records = score(model, {"text": texts}, END, quiet=True)["text"]
    for i, (logprobs, _) in enumerate(naive(model, texts)):
        assert np.abs(records.tokens(i)[0] - logprobs).max() < 2e-6


def test_logits_stay_within_the_budget_and_the_chunks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, split: Split, task: LanguageTask
) -> None:
    model, columns = lively(CONFIGS["llama"]), task.encode(split, "forget", COLUMNS)
    usual = score(model, columns, END, quiet=True)
    sizes_of_logits: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda _module, _args, out: sizes_of_logits.append(out.numel())
    )
    monkeypatch.setattr(causal, "READ_BUDGET", 5 * 300)
    chunked = score(model, columns, END, quiet=True)
    assert max(sizes_of_logits) == 5 * 300
    rows = sum(
        len({span_of for a in q.answers for span_of in a.predicted_at.tolist()})
        for q in scoring.build_questions(columns)
    )
    assert sum(sizes_of_logits) == rows * 300, "each row that predicts something gets its logits once"
    assert all(same(usual[c], chunked[c]) for c in COLUMNS)


@pytest.mark.parametrize(
    ("layer_types", "expected"),
    [(None, 8), (["full_attention"] * 2, None), (["full_attention", "sliding_attention"], 8)],
)
def test_the_window_is_that_of_the_layers_that_slide(
    layer_types: list[str] | None, expected: int | None, model: Any
) -> None:
    model.config.sliding_window, model.config.layer_types = 8, layer_types
    assert causal.window(model) == expected


@pytest.mark.parametrize(("local", "expected"), [(["global", "local"], 8), (["global"] * 2, None)])
def test_a_window_may_have_another_name(local: list[str], expected: int | None) -> None:
    config = GPTNeoConfig(
        num_layers=2, attention_types=[[local, 1]], window_size=8, hidden_size=32, num_heads=2
    )
    assert causal.window(fresh_model(config, 0)) == expected


def test_the_probe_reaches_beyond_a_window_that_no_configuration_names(model: Any) -> None:
    """A model's own mask hides what is 40 places before: a tree of 100 tokens shows it."""
    attend = scoring.causal.sdpa_attention_forward

    def local(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        places = torch.arange(query.shape[2])
        near = (places[:, None] - places < 40) & (places[:, None] >= places)
        mask = near if attention_mask is None else near & (attention_mask == 0)
        return attend(module, query, key, value, mask, **options)

    AttentionInterface.register("local_40", local)
    model.config._attn_implementation = "local_40"
    assert not scoring.shares_prompts(model, longest=10, size=100)
