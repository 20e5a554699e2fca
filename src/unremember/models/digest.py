"""Hashes of a model: its weights, and the configuration that says how they are used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_VOLATILE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
"""Entries of a configuration that saving and loading change, and that change no figure."""


def weights_digest(model: Any) -> str:
    """Hash the saved tensors of a model: SHA-256 (hex) over name, dtype, shape and bytes, sorted by name.

    A tensor that has two names counts under both, so tied weights and equal copies give the same digest.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        raw = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {raw.dtype} {tuple(raw.shape)}\n".encode())
        digest.update(raw.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def config_entries(model: Any) -> dict[str, Any]:
    """Return how a model uses its weights: the entries of its configuration, or else what its modules are."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_dict"):
        return {"modules": repr(model)}
    entries = {key: value for key, value in config.to_dict().items() if key not in _VOLATILE}
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    # Generation ends at these ids as well.
    return entries if ends in (None, entries.get("eos_token_id")) else {**entries, "generation ends": ends}


def config_digest(model: Any) -> str:
    """Hash how a model uses its weights: SHA-256 (hex) over its configuration, or else over its modules."""
    entries = config_entries(model)
    text = entries.get("modules") or json.dumps(entries, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def weight_files_digest(folder: str | Path) -> str:
    """Hash the weight files of a model folder: SHA-256 (hex) over their bytes, sorted by name."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
