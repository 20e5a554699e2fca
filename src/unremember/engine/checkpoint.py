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
from unremember.files import disk_errors


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one flat dict with ``/`` between the keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        k: v
        for key, value in tree.items()
        for k, v in flatten(value, f"{prefix}/{key}" if prefix else str(key)).items()
    }


def save(folder: Path, tree: dict[str, Any], position: int) -> None:
    """Save nested dicts of tensors and numbers as ``<folder>/<position>``, then drop the older ones."""
    flat = flatten(tree)
    tensors = {k: v.detach().clone().contiguous() for k, v in flat.items() if isinstance(v, Tensor)}
    numbers = {k: v for k, v in flat.items() if not isinstance(v, Tensor)}
    done, partial = folder / f"{position:09d}", folder / f"{position:09d}.partial"
    with disk_errors(done):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(tensors, partial / "state.safetensors")
        (partial / "state.json").write_text(json.dumps(numbers), encoding="utf-8")
        if done.exists():
            shutil.rmtree(done)
        os.replace(partial, done)
    for old in folder.iterdir():
        if old != done:
            shutil.rmtree(old, ignore_errors=True)


def latest(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint as a flat dict, or None."""
    done = sorted(p for p in folder.glob("*") if p.suffix != ".partial") if folder.exists() else []
    if not done:
        return None
    try:
        return {
            **json.loads((done[-1] / "state.json").read_text()),
            **load_file(done[-1] / "state.safetensors"),
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(
            f"checkpoint {done[-1]} is corrupt ({error}): delete that folder and run the same command"
        ) from error


def under(flat: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries below ``prefix/``, without it."""
    return {key[len(prefix) + 1 :]: value for key, value in flat.items() if key.startswith(f"{prefix}/")}


def optimizer_tree(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {str(i): state for i, state in optimizer.state_dict()["state"].items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
