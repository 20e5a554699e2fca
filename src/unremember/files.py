"""Write files whole or not at all, read them only as they were written, and report disk errors in one line.

A folder's ``SHA256SUMS`` holds the digests of its files, as ``sha256sum`` writes them. A line is appended
before its file appears, and every line of a name counts. So a process that dies in between leaves the earlier
file, whose line is still there, and processes that write other files of the folder do not disturb each other.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from unremember.errors import RunError
from unremember.processes import is_main_process

SUMS = "SHA256SUMS"
"""The file of a folder that holds the digests of the others."""
_SUM = re.compile(r"^([0-9a-f]{64})  (.+)$", re.MULTILINE)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a disk, or of one's share of it, that takes no more."""
_PRIVATE = 0o600
"""The permissions of a file that may hold text of the data."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused write into a RunError of one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in _FULL or any(
            os.strerror(code) in str(error) for code in _FULL
        )
        if not full:
            raise RunError(
                f"cannot write {path} ({error}): what was written earlier is whole; choose another folder, "
                "or clear the way, and run the same command"
            ) from error
        free = shutil.disk_usage(path.parent if path.parent.exists() else ".").free / 1e6
        raise RunError(
            f"{path}: the disk is full; {free:.0f} MB free. Earlier checkpoints are whole: make room and run "
            "the same command"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all. Of several processes, only the main one writes.

    Raises:
        RunError: The disk is full, or the write is refused.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, and that its owner alone may read.

    Of several processes, only the main one writes.

    Raises:
        RunError: The disk is full, or the write is refused.
    """
    if not is_main_process():
        return
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        try:
            partial.unlink(missing_ok=True)
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT, _PRIVATE), "wb") as file:
                file.write(content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_recorded(path: Path, content: bytes) -> None:
    """Write a file as ``write_bytes`` does, after its digest.

    Raises:
        RunError: The disk is full, or the write is refused.
    """
    record_digest(path, hashlib.sha256(content).hexdigest())
    write_bytes(path, content)


def record_digest(path: Path, digest: str) -> None:
    """Append the digest of a file that is about to appear to ``SHA256SUMS``. Only the main process does.

    Args:
        digest: SHA-256 (hex) of its bytes.

    Raises:
        RunError: The disk is full, or the write is refused.
    """
    if not is_main_process() or digest in recorded_digests(path):
        return
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / SUMS).open("a", encoding="utf-8") as file:
            file.write(f"{digest}  {path.name}\n")


def recorded_digests(path: Path) -> set[str]:
    """Return the digests (SHA-256, hex) under which a file was written; none where it has no record."""
    return {digest for digest, name in _read_sums(path.parent) if name == path.name}


def remove_unused_sums(folder: Path) -> None:
    """Remove a folder's ``SHA256SUMS`` where none of the files that it names is left."""
    if not any((folder / name).exists() for _, name in _read_sums(folder)):
        (folder / SUMS).unlink(missing_ok=True)


def _read_sums(folder: Path) -> list[tuple[str, str]]:
    """Return the digest and the name in each line of a folder's ``SHA256SUMS``."""
    sums = folder / SUMS
    return _SUM.findall(sums.read_text(encoding="utf-8", errors="replace")) if sums.exists() else []


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_as_written(path: Path, digest: str = "") -> bool:
    """Return whether a file has the bytes that were written; a file without a record has, with a notice.

    Args:
        digest: SHA-256 (hex) of its bytes, where it is known already.
    """
    recorded = recorded_digests(path)
    if not recorded:
        warnings.warn(
            f"{path.parent} holds files that its {SUMS} does not name: they are used unchecked "
            "(an earlier version wrote them, or they were moved)",
            stacklevel=2,
        )
        return True
    return (digest or file_digest(path)) in recorded


def read_verified(path: Path, remedy: str) -> bytes:
    """Read a file that was written with its digest.

    Args:
        remedy: What to do where it is corrupt; the end of the message.

    Raises:
        RunError: Its bytes are not those that were written.
    """
    content = path.read_bytes()
    if not is_as_written(path, hashlib.sha256(content).hexdigest()):
        raise RunError(f"{path} is corrupt, its bytes are not those that were written: {remedy}")
    return content
