"""Sampling: continuations of prompts at temperature 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


@torch.no_grad()
def sample_texts(
    model: Any, tokenizer: Any, prompts: Sequence[str], count: int, limit: int
) -> list[list[str]]:
    """Sample ``count`` continuations of each prompt, at most ``limit`` tokens, cut at the first newline."""
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    width, device = max(map(len, ids)), next(model.parameters()).device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
    out = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=count,
        max_new_tokens=limit,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
    )
    decoded = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    texts = [text.strip().split("\n")[0].strip() for text in decoded]
    return [texts[i * count : (i + 1) * count] for i in range(len(prompts))]
