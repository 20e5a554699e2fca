"""Sampled continuations end where the model's own settings say, and within its context."""

from __future__ import annotations

from typing import Any

import torch

from unremember.models import causal
from unremember.tasks.sampling import sample_texts

PROMPTS = ["Question: Who?\nAnswer:\n", "Where was the painter born?"]


def test_a_sample_ends_at_every_end_token_of_the_settings(model: Any, tokenizer: Any) -> None:
    """Every token ends it: nothing but one token is sampled."""
    model.generation_config.eos_token_id = list(range(len(tokenizer)))
    torch.manual_seed(0)
    texts = sample_texts(model, tokenizer, PROMPTS, 6, 20)
    longest = max(len(tokenizer(text)["input_ids"]) for some in texts for text in some)
    assert [len(some) for some in texts] == [6, 6] and longest <= 1


def test_a_sample_stays_within_the_context(model: Any, tokenizer: Any) -> None:
    context = causal.context_length(model)
    assert context == 128
    long = " the river" * context
    assert sample_texts(model, tokenizer, [long], 2, 20) == [["", ""]]
    room = len(tokenizer(PROMPTS[1])["input_ids"]) + 2
    model.config.max_position_embeddings = room
    torch.manual_seed(0)
    (texts,) = sample_texts(model, tokenizer, PROMPTS[1:], 8, 20)
    assert max(len(tokenizer(text)["input_ids"]) for text in texts) <= 4
