"""Hidden states at the end of each prompt, after every block: what a probe is fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unremember.models import causal
from unremember.progress import Progress
from unremember.tasks.text import Texts

ROWS = 32
"""Prompts in one forward."""


@torch.no_grad()
def prompt_states(model: Any, texts: Texts, quiet: bool = False) -> np.ndarray:
    """float32[n, L, D]: of each row's prompt, the states at its last token after each of the L blocks.

    Rows are right-padded, and what lies behind a token never reaches it.
    """
    first = np.unique(texts.rows, return_index=True)[1]
    prompts = [torch.from_numpy(texts.prompt(i)) for i in first]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    device = next(model.parameters()).device
    found: list[np.ndarray] = [np.empty(0)] * len(prompts)
    with Progress("states", len(prompts), quiet=quiet) as progress:
        for at in range(0, len(order), ROWS):
            rows = order[at : at + ROWS]
            ids = pad_sequence([prompts[i] for i in rows], batch_first=True).to(device)
            for line, states in enumerate(torch.stack(after_blocks(model, ids), 2)):
                found[rows[line]] = states[len(prompts[rows[line]]) - 1].float().cpu().numpy()
            progress.advance(len(rows), ids.numel())
    return np.stack(found)


def after_blocks(model: Any, ids: Tensor) -> list[Tensor]:
    """The output [B, T, D] of every block."""
    found: list[Tensor] = []
    keep = lambda block, args, output: found.append(output[0] if isinstance(output, tuple) else output)  # noqa: E731
    hooks = [block.register_forward_hook(keep) for block in causal.decoder_blocks(model)]
    try:
        causal.last_hidden(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    return found
