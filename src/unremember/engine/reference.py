"""The reference: what the frozen original, or another frozen model, says of the rows that will be drawn: computed once, memory-mapped."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unremember.errors import ModelError
from unremember.files import disk_errors
from unremember.models.digest import weights_digest
from unremember.models.load import load_model, model_in
from unremember.processes import main, same, spread, wait
from unremember.tasks.protocol import Need, Task
from unremember.tasks.ragged import Ragged


@dataclasses.dataclass(frozen=True)
class CachedReference:
    """One need of one role of n rows: ``values`` [N, …] (memory-mapped) and ``offsets`` int64[n + 1] into it.

    Without offsets every row has one entry: ``values`` [n, …]. ``finish`` makes the need of what was kept for it.
    """

    values: np.ndarray
    offsets: np.ndarray | None
    finish: Callable[[Tensor], Tensor] | None = None


@dataclasses.dataclass(frozen=True)
class ReferenceView:
    """The cached quantities of the drawn rows of one role: ``read(need)`` as the task's own views, Ragged or Tensor[B, …]."""

    cached: Mapping[Need, CachedReference]
    rows: np.ndarray
    device: torch.device

    def read(self, need: Need) -> Ragged | Tensor:
        found = self.cached[need]
        if found.offsets is None:
            return torch.from_numpy(found.values[self.rows]).to(self.device)
        pieces = [found.values[found.offsets[row] : found.offsets[row + 1]] for row in self.rows]
        counts = torch.tensor([len(piece) for piece in pieces], device=self.device)
        kept = torch.from_numpy(np.concatenate(pieces)).to(self.device)
        return Ragged(found.finish(kept) if found.finish else kept, counts)


def another(folder: str, model: Any) -> Any:
    """The frozen model in a model or run folder, of ``model``'s type and on its device. Raises ModelError where their vocabularies differ."""
    found = load_model(model_in(folder), dtype=model.dtype).to(model.device)
    mine, other = (one.config.get_text_config().vocab_size for one in (model, found))
    if mine != other:
        raise ModelError(
            f"{folder} has {other} tokens, the model {mine}: take a model that was trained from this one"
        )
    return found


def read_frozen(
    model: Any,
    task: Task,
    data: Mapping[str, Any],
    wanted: Mapping[str, Sequence[Need]],
    drawn: Mapping[str, np.ndarray],
    rows: Mapping[str, str],
    folder: Path,
) -> tuple[dict[str, dict[Need, CachedReference]], tuple[str, ...]]:
    """(what is ``wanted`` of frozen models by role and need, the digests of these models, the original's first).

    ``drawn`` are the rows of each role that will be read, ``rows`` the digest of all that it has.
    """
    asked = [need for needs in wanted.values() for need in needs]
    models = {None: model} | {need.of: another(need.of, model) for need in asked if need.of is not None}
    digests = {of: weights_digest(one) for of, one in models.items()}
    lasting = {need: task.compact(models[need.of], dataclasses.replace(need, of=None)) for need in asked}
    cached = {
        role: {
            need: cache(
                models[need.of],
                task,
                data[role],
                role,
                lasting[need][0],
                drawn[role],
                folder,
                f"{digests[need.of]}{rows[role]}{task.digest}",
                lasting[need][1],
            )
            for need in needs
        }
        for role, needs in wanted.items()
    }
    return cached, tuple(digests.values())


def cache(
    model: Any,
    task: Task,
    data: Any,
    role: str,
    need: Need,
    rows: np.ndarray,
    folder: Path,
    key: str,
    finish: Callable[[Tensor], Tensor] | None = None,
    batch: int = 64,
) -> CachedReference:
    """Compute ``need`` for ``rows`` of a role (others get no entry) or map the file that holds it already.

    ``key`` binds the file to the model's, the data's and the task's digests; ``finish`` is what ``task.compact`` gave with it.
    """
    name = hashlib.sha256(
        f"{key}{role}{need}{hashlib.sha256(rows.tobytes()).hexdigest()}".encode()
    ).hexdigest()[:24]
    path, index = folder / f"{name}.npy", folder / f"{name}.offsets.npy"
    if not same(path.exists()):
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            _compute(model, task, data, role, need, rows, path, index, batch)
            wait()
    return CachedReference(np.load(path, mmap_mode="c"), np.load(index) if index.exists() else None, finish)


def _compute(
    model: Any,
    task: Task,
    data: Any,
    role: str,
    need: Need,
    rows: np.ndarray,
    path: Path,
    index: Path,
    batch: int,
) -> None:
    work, counts = task.sizes(data, need.text)
    kept = np.zeros_like(counts)
    kept[rows] = counts[rows]
    offsets = np.concatenate([[0], np.cumsum(kept)])
    out: np.memmap | None = None
    order = rows[np.argsort(work[rows], kind="stable")]
    partial = path.with_suffix(".partial")
    model.eval()

    @torch.no_grad()
    def read(part: np.ndarray) -> tuple[bool, np.ndarray]:
        found = task.forward(model, {role: (data, part)}, {role: [need]})[role].read(need)
        ragged = isinstance(found, Ragged)
        return ragged, (found.values if ragged else found).float().cpu().numpy()

    parts = np.split(order, range(batch, len(order), batch))
    for part, (ragged, values) in zip(parts, spread(parts, read)):
        if not main():
            continue
        if out is None:
            shape = (int(offsets[-1]) if ragged else len(work), *values.shape[1:])
            out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        where = (
            np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in part]) if ragged else part
        )
        out[where] = values
    if out is None:
        return
    out.flush()
    if ragged:
        np.save(index, offsets)
    os.replace(partial, path)


def views(
    cached: Mapping[str, Mapping[Need, CachedReference]], rows: Mapping[str, np.ndarray], device: torch.device
) -> dict[str, ReferenceView]:
    return {role: ReferenceView(cached.get(role, {}), at, device) for role, at in rows.items()}
