"""Hidden states at the end of each prompt, after every block: what a probe is fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unremember.data.text import Texts
from unremember.engine.progress import Progress
from unremember.models import causal

ROWS = 32
"""Prompts in one forward."""


@torch.no_grad()
def prompt_states(model: Any, texts: Texts, quiet: bool = False) -> np.ndarray:
    """float32[n, L, D]: of each row's prompt, the states at its last token after each of the L blocks (after the last: the normed ones).

    Rows are right-padded, and what lies behind a token never reaches it.
    """
    first = np.unique(texts.rows, return_index=True)[1]
    prompts = [texts.prompt(i) for i in first]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    device = next(model.parameters()).device
    found: list[np.ndarray] = [np.empty(0)] * len(prompts)
    with Progress("states", len(prompts), quiet=quiet) as progress:
        for at in range(0, len(order), ROWS):
            rows = order[at : at + ROWS]
            lengths = torch.tensor([len(prompts[i]) for i in rows])
            ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
            for line, i in enumerate(rows):
                ids[line, : len(prompts[i])] = torch.from_numpy(prompts[i])
            layers = causal.body(model)(input_ids=ids.to(device), use_cache=False, output_hidden_states=True).hidden_states[1:]
            ends = torch.stack([states[torch.arange(len(rows), device=device), lengths.to(device) - 1] for states in layers], 1)
            for line, i in enumerate(rows):
                found[i] = ends[line].float().cpu().numpy()
            progress.advance(len(rows), int(lengths.sum()))
    return np.stack(found)
