"""The hash of a model's weights: what every figure is bound to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch


def weights_digest(model: Any) -> str:
    """SHA-256 (hex) over name, dtype, shape and bytes of the tensors that are saved, sorted by name.

    A tensor that has two names counts under both, so tied weights and equal copies give the same digest.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        raw = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {raw.dtype} {tuple(raw.shape)}\n".encode())
        digest.update(raw.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_in(folder: str | Path) -> str:
    """SHA-256 (hex) over the weight files of a model folder, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
