"""The hash of a model's weights: what every figure is bound to."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def weights_digest(model: Any) -> str:
    """SHA-256 (hex) over name, dtype, shape and bytes of the tensors, sorted by name; tied weights count once."""
    seen: set[int] = set()
    digest = hashlib.sha256()
    named = [*model.named_parameters(), *model.named_buffers()]
    persistent = set(model.state_dict())
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        if name not in persistent or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        raw = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{raw.dtype}{tuple(raw.shape)}".encode())
        digest.update(raw.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
