"""Master weights: a model that is stored in half precision is trained in single precision.

At usual learning rates a step is smaller than the distance between two half-precision numbers, so that most
weights would not move at all.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unremember.engine.selections.lora import LoRA
from unremember.engine.settings import Dtype
from unremember.registry import selections

_HALF = (torch.bfloat16, torch.float16)
_LOST = 0.5
"""Share of the changed entries that rounding may undo before the user is told."""


@contextlib.contextmanager
def single_precision(model: Any, chosen: Sequence[Any], dtype: Dtype) -> Iterator[None]:
    """Hold the half-precision weights and buffers of a model in single precision within the block, in place.

    Afterwards they have the type that they came in again, unless ``dtype`` is ``fp32``; where rounding then
    undoes most of what changed, the user is told. A quantised model is left alone, and so is one that learns
    by adapters alone: those are in single precision already.

    Args:
        model: The model.
        chosen: The selections by which it is trained.
        dtype: What the weights become in the end.
    """
    adapters_alone = all(isinstance(selections.make(selection), LoRA) for selection in chosen)
    stored: dict[str, Tensor] = {}
    if not (getattr(model, "is_quantized", False) or (adapters_alone and dtype == "stored")):
        stored = {name: tensor.data for name, tensor in _tensors(model) if tensor.dtype in _HALF}
    for name, tensor in _tensors(model):
        if name in stored:
            tensor.data = tensor.data.float()
    changed = remaining = 0
    try:
        yield
    finally:
        for name, tensor in () if dtype == "fp32" else _tensors(model):
            if name in stored:
                before, rounded = stored[name].to(tensor.device), tensor.data.to(stored[name].dtype)
                changed += int((tensor.data != before.float()).sum())
                remaining += int((rounded != before).sum())
                tensor.data = rounded
    if remaining < (1 - _LOST) * changed:
        half = str(next(iter(stored.values())).dtype).removeprefix("torch.")
        warnings.warn(
            f"{1 - remaining / changed:.0%} of the weights that changed are what they were again once they "
            f"are stored in {half}: keep single precision (dtype=fp32), or train longer or at a higher rate",
            stacklevel=3,
        )


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())
