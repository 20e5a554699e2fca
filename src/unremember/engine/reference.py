"""The reference: what the frozen original, or another frozen model, gives for the rows that a run will draw.

It is computed once, before training, and memory-mapped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unremember.errors import ModelError
from unremember.files import disk_errors, file_digest, is_as_written, record_digest, write_recorded
from unremember.models.digest import weights_digest
from unremember.models.load import resolve_model_folder
from unremember.processes import (
    is_main_process,
    map_over_processes,
    value_of_main_process,
    wait_for_all_processes,
)
from unremember.tasks.protocol import Need, Task
from unremember.tasks.ragged import Ragged

_FORWARD_ROWS = 64
"""Rows of one forward."""


@dataclasses.dataclass(frozen=True)
class CachedReference:
    """One quantity of one role of n rows.

    Args:
        values: float32[N, …], memory-mapped: one entry an answer token, or one a row where there are no
            offsets.
        offsets: int64[n + 1]: the entries of row i are ``offsets[i]:offsets[i + 1]``. None: one entry a row.
        rebuild: Makes the quantity of what is stored for it; None where it is stored itself.
    """

    values: np.ndarray
    offsets: np.ndarray | None
    rebuild: Callable[[Tensor], Tensor] | None = None


@dataclasses.dataclass(frozen=True)
class ReferenceView:
    """The cached quantities of the drawn rows (int64[B]) of one role."""

    cached: Mapping[Need, CachedReference]
    rows: np.ndarray
    device: torch.device

    def read(self, need: Need) -> Ragged | Tensor:
        """Return a quantity as the task's own views do: Ragged over answer tokens, or Tensor[B, …]."""
        entry = self.cached[need]
        if entry.offsets is None:
            return torch.from_numpy(entry.values[self.rows]).to(self.device)
        pieces = [entry.values[entry.offsets[row] : entry.offsets[row + 1]] for row in self.rows]
        counts = torch.tensor([len(piece) for piece in pieces], device=self.device)
        stored = torch.from_numpy(np.concatenate(pieces)).to(self.device)
        return Ragged(entry.rebuild(stored) if entry.rebuild else stored, counts)


def reference_views(
    cached: Mapping[str, Mapping[Need, CachedReference]], rows: Mapping[str, np.ndarray], device: torch.device
) -> dict[str, ReferenceView]:
    """Return, by role, the view of the drawn rows."""
    return {role: ReferenceView(cached.get(role, {}), drawn, device) for role, drawn in rows.items()}


def load_second_model(folder: str, model: Any, task: Task) -> Any:
    """Load the frozen model in a model or run folder, with the type of ``model``'s weights and on its device.

    Raises ModelError where the two do not take the same inputs or give the same outputs.
    """
    second, second_task = type(task).load(str(resolve_model_folder(folder)))
    weight = next(model.parameters())
    sizes, second_sizes = task.describe(model), second_task.describe(second)
    if sizes != second_sizes:
        raise ModelError(
            f"{folder} has {second_sizes}, the model {sizes}: choose a model that was trained from this one"
        )
    return second.to(weight.device, weight.dtype)


def read_frozen(
    model: Any,
    task: Task,
    data: Mapping[str, Any],
    needs: Mapping[str, Sequence[Need]],
    drawn: Mapping[str, np.ndarray],
    row_digests: Mapping[str, str],
    folder: Path,
) -> tuple[dict[str, dict[Need, CachedReference]], tuple[str, ...]]:
    """Compute what is read of frozen models, or map what was computed before.

    Args:
        model: The original.
        data: By role: the encoded rows.
        needs: By role: the quantities.
        drawn: By role, int64[m]: the rows that training will draw; only they get entries.
        row_digests: By role: the digest of all its rows.
        folder: Where the files lie.

    Returns:
        By role and need, the cached quantity; and the weight digests of the models, the original's first.
    """
    every = [need for role_needs in needs.values() for need in role_needs]
    models = {None: model} | {
        need.of: load_second_model(need.of, model, task) for need in every if need.of is not None
    }
    digests = {of: weights_digest(frozen) for of, frozen in models.items()}
    cached: dict[str, dict[Need, CachedReference]] = {role: {} for role in needs}
    for role, role_needs in needs.items():
        for need in role_needs:
            frozen = models[need.of]
            stored, rebuild = task.compact(frozen, dataclasses.replace(need, of=None))
            key = f"{digests[need.of]}{row_digests[role]}{task.digest}"
            cached[role][need] = cache_reference(
                frozen, task, data[role], role, stored, drawn[role], folder, key, rebuild
            )
    return cached, tuple(digests.values())


def cache_reference(
    model: Any,
    task: Task,
    data: Any,
    role: str,
    need: Need,
    rows: np.ndarray,
    folder: Path,
    key: str,
    rebuild: Callable[[Tensor], Tensor] | None = None,
    batch_rows: int = _FORWARD_ROWS,
) -> CachedReference:
    """Compute one quantity of a frozen model for some rows, or map the file that already holds it.

    Args:
        rows: int64[m], the rows of ``role`` that training will draw; other rows get no entry.
        key: Digests of model, data and task. A file that was written under another key is never read.
        rebuild: Turns what is stored into the quantity itself (final states into logits); None if they are
            the same.

    Raises:
        RunError: The folder cannot be written; nothing is left half-written.
    """
    name = hashlib.sha256(
        f"{key}{role}{need}{hashlib.sha256(rows.tobytes()).hexdigest()}".encode()
    ).hexdigest()
    path, index = folder / f"{name[:24]}.npy", folder / f"{name[:24]}.offsets.npy"
    if not value_of_main_process(is_main_process() and is_cached(path) and is_cached(index)):
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            _compute(model, task, data, role, need, rows, path, index, batch_rows)
            wait_for_all_processes()
    offsets = np.load(index)
    return CachedReference(np.load(path, mmap_mode="c"), offsets if len(offsets) else None, rebuild)


def is_cached(path: Path) -> bool:
    """Return whether a file is there as it was written. A corrupt one is as none, with a notice."""
    if not path.exists() or is_as_written(path):
        return path.exists()
    warnings.warn(
        f"{path} is corrupt, its bytes are not those that were written: it is computed anew", stacklevel=2
    )
    return False


def _compute(
    model: Any,
    task: Task,
    data: Any,
    role: str,
    need: Need,
    rows: np.ndarray,
    path: Path,
    index: Path,
    batch_rows: int,
) -> None:
    """Write one quantity of some rows to ``path``, and its offsets to ``index``: none for one entry a row."""
    work, counts = task.sizes(data, need.text)
    stored_counts = np.zeros_like(counts)
    stored_counts[rows] = counts[rows]
    offsets = np.concatenate([[0], np.cumsum(stored_counts)])
    memory: np.memmap | None = None
    order = rows[np.argsort(work[rows], kind="stable")]
    partial = path.with_suffix(".partial")
    model.eval()

    @torch.no_grad()
    def read(batch: np.ndarray) -> tuple[bool, np.ndarray]:
        quantity = task.forward(model, {role: (data, batch)}, {role: [need]})[role].read(need)
        ragged = isinstance(quantity, Ragged)
        return ragged, (quantity.values if ragged else quantity).float().cpu().numpy()

    batches = np.split(order, range(batch_rows, len(order), batch_rows))
    try:
        for batch, (ragged, values) in zip(batches, map_over_processes(batches, read)):
            if not is_main_process():
                continue
            if memory is None:
                shape = (int(offsets[-1]) if ragged else len(work), *values.shape[1:])
                memory = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            entries = (
                np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in batch])
                if ragged
                else batch
            )
            memory[entries] = values
        if memory is None:
            return
        memory.flush()
        listed = io.BytesIO()
        np.save(listed, offsets if ragged else offsets[:0])
        write_recorded(index, listed.getvalue())
        record_digest(path, file_digest(partial))
        os.replace(partial, path)
    finally:
        if is_main_process():
            partial.unlink(missing_ok=True)
