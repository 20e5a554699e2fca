"""Presets draw their weights from a seed alone; the trained tokenizer gives back what it was given."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from unremember.models.digest import weights_digest
from unremember.models.presets import fresh_model, small_llama
from unremember.tasks.tokenizers import END, PAD, train_tokenizer


def llama_of_seed(seed: int) -> Any:
    return small_llama(64, hidden=16, layers=1, heads=2, seed=seed)


def test_the_same_seed_gives_the_same_weights_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    first = weights_digest(llama_of_seed(4))
    torch.manual_seed(2)
    assert weights_digest(llama_of_seed(4)) == first and weights_digest(llama_of_seed(5)) != first


@pytest.mark.parametrize(
    "make",
    [
        llama_of_seed,
        lambda seed: fresh_model(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2), seed),
    ],
)
def test_no_global_random_state_changes(make: Any) -> None:
    torch.manual_seed(9)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    expected = torch.rand(3)
    torch.manual_seed(9)
    make(4)
    assert torch.equal(torch.get_rng_state(), states[0]) and torch.equal(torch.rand(3), expected)
    assert random.getstate() == states[1] and (np.random.get_state()[1] == states[2]).all()


def test_a_seed_does_not_reach_the_generators_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.manual_seed`` would seed every GPU, which no fork of the CPU state brings back."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU was seeded"))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("every device was seeded"))
    llama_of_seed(4)


def test_a_small_llama_has_the_shape_that_was_asked_for() -> None:
    model = small_llama(300, hidden=48, layers=3, heads=2, context=64)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (
        sum(p.numel() for p in model.parameters())
        == 300 * 48 + 3 * (4 * 48 * 48 + 3 * 48 * 128 + 2 * 48) + 48
    )
    assert (model.config.eos_token_id, model.config.pad_token_id, model.config.max_position_embeddings) == (
        0,
        1,
        64,
    )


def test_the_first_logits_have_unit_variance_unless_a_spread_is_named() -> None:
    ids = torch.arange(2, 250)[None]
    for spread, expected in ((0.0, 1.0), (0.02, 0.02 * 192**0.5)):
        assert float(small_llama(2000, spread=spread)(input_ids=ids).logits.std()) == pytest.approx(
            expected, rel=0.15
        )


def test_the_tokenizer_gives_back_any_text_and_adds_nothing() -> None:
    texts = ["Ida Morn wrote it.", "Über Straßen — 雨  \t\n", "🙂 x² ≤ 3"]
    tokenizer = train_tokenizer(iter(["Ida Morn wrote the quiet river in the town of Velin."] * 9), 320)
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text and not {0, 1} & set(ids)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1) and 258 < len(tokenizer) <= 320
    assert tokenizer(f"a{END}b{PAD}")["input_ids"][1::2] == [0, 1], "special texts are one token each"
    assert len(tokenizer(texts[0])["input_ids"]) < len(texts[0]) / 2, "it has learned merges"


def test_the_same_texts_give_the_same_tokenizer() -> None:
    first, second = (train_tokenizer(["a banana, an ananas", "bananas"], 280) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert train_tokenizer(["otters"], 280).backend_tokenizer.to_str() != first.backend_tokenizer.to_str()
