"""The size of each text's gradient: what is well remembered hardly moves the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unremember.models import causal
from unremember.processes import spread
from unremember.progress import Progress
from unremember.tasks.text import Texts


def gradient_norms(model: Any, texts: Texts, quiet: bool = False) -> np.ndarray:
    """float64[n]: of each text's mean loss, the mean over the weight tensors of the gradient's 2-norm. One backward a text.

    The model is in evaluation mode (no dropout); its own gradients and flags are left as they were.
    """
    model.eval()
    device = next(model.parameters()).device
    weights, flags = list(model.parameters()), [p.requires_grad for p in model.parameters()]
    found: list[float] = []

    def one(i: int) -> float:
        ids = torch.from_numpy(texts.ids[texts.offsets[i] : texts.offsets[i + 1]]).to(device)
        hidden = causal.last_hidden(model, ids[None])[0, texts.starts[i] - 1 : -1]
        loss = -causal.token_logprobs(model, hidden, ids[texts.starts[i] :]).mean()
        norms = torch.stack(
            [g.norm() for g in torch.autograd.grad(loss, weights, allow_unused=True) if g is not None]
        )
        return float(norms.sum()) / len(weights)

    for p in weights:
        p.requires_grad_(True)
    try:
        with Progress("gradients", len(texts), quiet=quiet) as progress:
            for length, norm in zip(texts.lengths.tolist(), spread(range(len(texts)), one)):
                found.append(norm)
                progress.advance(1, length)
    finally:
        for p, flag in zip(weights, flags):
            p.requires_grad_(flag)
    return np.array(found)
