"""Sampling: continuations of prompts at temperature 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unremember.models import causal


@torch.no_grad()
def sample_texts(
    model: Any, tokenizer: Any, prompts: Sequence[str], count: int, limit: int
) -> list[list[str]]:
    """Sample ``count`` continuations of each prompt, cut at the first newline.

    A continuation has at most ``limit`` tokens, and none beyond the model's context.
    """
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    width, device = max(map(len, ids)), next(model.parameters()).device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
    context = causal.context_length(model)
    room = limit if context is None else min(limit, context - width)
    if room < 1:
        return [[""] * count for _ in prompts]
    out = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=count,
        max_new_tokens=room,
        pad_token_id=pad,
        eos_token_id=sorted({tokenizer.eos_token_id, *causal.end_tokens(model)}),
    )
    decoded = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    texts = [text.strip().split("\n")[0].strip() for text in decoded]
    return [texts[i * count : (i + 1) * count] for i in range(len(prompts))]
