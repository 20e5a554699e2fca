"""Write files whole or not at all, and report disk errors in one line."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from unremember.errors import RunError
from unremember.processes import is_main_process


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused write into a RunError of one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        what = "the disk is full" if full else f"cannot write ({error})"
        free = f"{shutil.disk_usage(path.parent if path.parent.exists() else '.').free / 1e6:.0f} MB free"
        raise RunError(
            f"{path}: {what}; {free}. Earlier checkpoints are whole: make room and run the same command"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all. Of several processes, only the main one writes.

    Raises:
        RunError: The disk is full, or the write is refused.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all. Of several processes, only the main one writes.

    Raises:
        RunError: The disk is full, or the write is refused.
    """
    if not is_main_process():
        return
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(content)
        os.replace(partial, path)
