"""Another model's opinion of what is said: a language model's probability, a classifier's label."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from unremember.audits.fluency import Fluency
from unremember.data.split import make_split
from unremember.errors import ModelError
from unremember.models.load import save_model
from unremember.observe.kinds import generations
from unremember.observe.kinds.judge_scores import label_probabilities, text_probabilities
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Template

TEXTS = ["Bread.", "She was born."]
PROMPTS, SAID = ["Question: Who sells bread?\nAnswer:\n", "Question: Where?\nAnswer:\n"], ["The baker.", ""]


@pytest.fixture(scope="module")
def language(tiny_llama: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges") / "llama"
    save_model(copy.deepcopy(tiny_llama), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges") / "bert"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=1,
        id2label={0: "clean", 1: "mild", 2: "noise"},
        label2id={"clean": 0, "mild": 1, "noise": 2},
    )
    save_model(BertForSequenceClassification(config), tokenizer, folder)
    return folder


def test_a_language_model_gives_the_probability_of_what_is_said(
    language: Path, tiny_llama: Any, tokenizer: Any
) -> None:
    """Against a plain forward; the end token counts as a token that is said, an empty text has no number."""
    scores = text_probabilities(str(language), PROMPTS, SAID, quiet=True)
    start, ids = (
        len(tokenizer(PROMPTS[0])["input_ids"]),
        [*tokenizer(PROMPTS[0] + SAID[0])["input_ids"], tokenizer.eos_token_id],
    )
    with torch.no_grad():
        logprobs = tiny_llama(torch.tensor([ids])).logits.log_softmax(-1)[0]
    expected = np.mean([float(logprobs[position - 1, ids[position]]) for position in range(start, len(ids))])
    assert scores[0] == pytest.approx(np.exp(expected), rel=1e-5) and np.isnan(scores[1])


def test_a_classifier_gives_the_probability_of_its_label(classifier: Path, tokenizer: Any) -> None:
    scores = label_probabilities(str(classifier), "noise", SAID)
    model = BertForSequenceClassification.from_pretrained(classifier).eval()
    with torch.no_grad():
        expected = model(**tokenizer(SAID[0], return_tensors="pt")).logits.softmax(-1)[0, 2]
    assert scores[0] == pytest.approx(float(expected), rel=1e-5) and len(scores) == 2


def test_a_judge_that_cannot_judge_says_why(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no label 'dirty'; it has clean, mild, noise"):
        label_probabilities(str(classifier), "dirty", SAID)
    with pytest.raises(ModelError, match="no model folder"):
        label_probabilities(str(tmp_path / "nothing"), "clean", SAID)
    with pytest.raises(ModelError, match="no model folder"):
        text_probabilities(str(tmp_path / "nothing"), PROMPTS, SAID)


def test_fluency_under_a_judge(
    language: Path, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = iter(tokenizer(TEXTS)["input_ids"])
    monkeypatch.setattr(generations, "generate", lambda *_: [next(spoken), next(spoken)])
    split = make_split(
        {"forget": [{"question": f"Who is {name}?", "answer": "A baker."} for name in ("Ida", "Ole")]}
    )
    audit, artefact = Fluency(judge=str(language)), Artefact(model, LanguageTask(tokenizer))
    scores = audit.measure(Store().observe(artefact, split, audit.requests(split), quiet=True), [])
    expected = text_probabilities(
        str(language),
        [Template().render(row, tokenizer) for row in split["forget"].rows],
        TEXTS,
        quiet=True,
    )
    assert scores.n == 2 and scores.value == pytest.approx(expected.mean())
    assert scores.extra["perplexity"] == pytest.approx(np.exp(-np.log(scores.per_example).mean()))
