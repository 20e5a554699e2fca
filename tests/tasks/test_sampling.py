"""Sampled continuations end where the model's own settings say, and within its context."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unremember.models import causal
from unremember.tasks.sampling import sample_texts

PROMPTS = ["Question: Who?\nAnswer:\n", "Where was the painter born?"]


@pytest.fixture
def lengths(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of ``generate`` gave beyond its prompts."""
    given: list[int] = []
    real = model.generate

    def generate(**inputs: Any) -> Any:
        out = real(**inputs)
        given.append(out.shape[1] - inputs["input_ids"].shape[1])
        return out

    monkeypatch.setattr(model, "generate", generate)
    return given


def test_a_sample_ends_at_every_end_token_of_the_settings(
    model: Any, tokenizer: Any, lengths: list[int]
) -> None:
    """Where every token ends it, nothing but one token is sampled."""
    model.generation_config.eos_token_id = list(range(len(tokenizer)))
    texts = sample_texts(model, tokenizer, PROMPTS, 6, 20)
    assert [len(some) for some in texts] == [6, 6] and lengths == [1]


def test_a_sample_stays_within_the_context(model: Any, tokenizer: Any, lengths: list[int]) -> None:
    assert causal.context_length(model) == 128
    assert sample_texts(model, tokenizer, [" the river" * 128], 2, 20) == [["", ""]] and lengths == []
    model.config.max_position_embeddings = len(tokenizer(PROMPTS[1])["input_ids"]) + 2
    torch.manual_seed(0)
    sample_texts(model, tokenizer, PROMPTS[1:], 8, 20)
    assert lengths == [2]
