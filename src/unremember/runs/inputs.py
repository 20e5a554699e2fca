"""What a run is made of: the files that its configuration names, and the files of a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unremember.files import SUMS, file_digest
from unremember.runs.config import RunConfig

_PARTS = ("method", "blend", "sampling", "selection", "retain_loss")


def model_files(folder: Path) -> dict[str, str]:
    """Hash the files of a model folder: SHA-256 (hex) by name, without pages and hidden files.

    Nothing is hashed of a hub name.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        file.name: file_digest(file)
        for file in files
        if file.is_file() and file.suffix != ".md" and not file.name.startswith(".") and file.name != SUMS
    }


def named_paths(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """Yield key and path of the files and folders that a configuration names beside its data."""
    tree = {part: getattr(config, part) for part in _PARTS}
    parts = {name: part for name, part in tree.items() if isinstance(part, Mapping)}
    yield from _paths_under({"model": config.model, **parts}, "")


def _paths_under(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Path]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _paths_under(value, f"{prefix}{key}.")
        elif key != "name" and isinstance(value, str) and value and os.path.exists(value):
            yield f"{prefix}{key}", Path(value)
