"""Checkpoints: safetensors and JSON in one folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unremember.errors import RunError
from unremember.files import disk_errors, file_digest, is_as_written, record_digest

_TENSORS, _NUMBERS = "state.safetensors", "state.json"


def flatten_tree(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one flat dict with ``/`` between the keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten_tree(value, f"{prefix}/{key}" if prefix else str(key))
    return flat


def save_checkpoint(folder: Path, tree: dict[str, Any], position: int) -> None:
    """Write nested dicts of tensors and numbers to ``<folder>/<position>``, then delete older checkpoints."""
    flat = flatten_tree(tree)
    tensors = {
        key: value.detach().clone().contiguous() for key, value in flat.items() if isinstance(value, Tensor)
    }
    numbers = {key: value for key, value in flat.items() if not isinstance(value, Tensor)}
    complete, partial = folder / f"{position:09d}", folder / f"{position:09d}.partial"
    with disk_errors(complete):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            save_file(tensors, partial / _TENSORS)
            (partial / _NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")
            for name in (_TENSORS, _NUMBERS):
                record_digest(partial / name, file_digest(partial / name))
            if complete.exists():
                shutil.rmtree(complete)
            os.replace(partial, complete)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    for old in folder.iterdir():
        if old != complete:
            shutil.rmtree(old, ignore_errors=True)


def latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest whole checkpoint as a flat dict, or None. Raises RunError where it cannot be read."""
    complete = sorted(p for p in folder.glob("*") if p.suffix != ".partial") if folder.exists() else []
    if not complete:
        return None
    newest = complete[-1]
    try:
        changed = [name for name in (_TENSORS, _NUMBERS) if not is_as_written(newest / name)]
        if not changed:
            return {**json.loads((newest / _NUMBERS).read_text()), **load_file(newest / _TENSORS)}
        error: Exception | str = f"the bytes of {changed[0]} are not those that were written"
    except (OSError, ValueError, SafetensorError) as unreadable:
        error = unreadable
    raise RunError(f"checkpoint {newest} is corrupt ({error}): delete that folder and run the same command")


def entries_under(flat: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries below ``prefix/``, without the prefix."""
    return {key[len(prefix) + 1 :]: value for key, value in flat.items() if key.startswith(f"{prefix}/")}


def optimizer_tree(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of an optimiser (moments, step counts) by index of the weight."""
    return {str(i): state for i, state in optimizer.state_dict()["state"].items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Any]) -> None:
    """Give an optimiser the state that ``optimizer_tree`` returned, flattened."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
