"""One writer for a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLock, Timeout

from unremember.errors import RunError
from unremember.files import disk_errors
from unremember.processes import is_main_process, value_of_main_process

LOCK = "lock"
"""The file in a run folder that names the process at work there, and its host."""


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the processes of one job hold it together.

    The lock of a process that is gone is taken over. A folder that is empty at the end is removed.

    Raises:
        RunError: Another process holds the folder, or it cannot be written.
    """
    lock, holder = SoftFileLock(folder / LOCK), ""
    try:
        if is_main_process():
            with disk_errors(folder / LOCK):
                folder.mkdir(parents=True, exist_ok=True)
                holder = acquire(lock)
        if holder := value_of_main_process(holder):
            raise RunError(f"{folder} is in use by {holder}: wait for it, or choose another folder")
        yield
    finally:
        lock.release()
        if is_main_process():
            with contextlib.suppress(OSError):  # it holds a run
                folder.rmdir()


def acquire(lock: SoftFileLock) -> str:
    """Take a lock, or return which process holds it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        path = Path(lock.lock_file)
        words = path.read_text(encoding="utf-8", errors="replace").split() if path.exists() else []
        if len(words) < 2:
            return f"another process ({path} does not say which: delete it if there is none)"
        return f"process {words[0]} on {words[1].partition('?')[0]}"
    return ""
