"""Probes: what an architecture allows, decided by computing the states of a few tokens in two ways.

An architecture does not change in training, so a probe runs once; a copy of a model keeps its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_ANSWERS = "_probed"
"""The attribute of a model that holds its answers."""


def probe_ids(model: Any, count: int) -> Tensor:
    """Return int64[count], token ids of the model on its device; neighbours differ."""
    device = next(model.parameters()).device
    return (torch.arange(count, device=device) * 7 + 3) % model.config.get_text_config().vocab_size


def agrees(model: Any, *question: Any, compute: Callable[[], tuple[Tensor, Tensor]]) -> bool:
    """Return whether a model computes the same states in two ways.

    Args:
        question: What the answer depends on beside the architecture. It is computed once for each question.
        compute: Returns the two Tensors[..., D]. A model that raises in one of the ways does not agree.
    """
    answers = model.__dict__.setdefault(_ANSWERS, {})
    key = (*question, getattr(model.config, "_attn_implementation", None))
    if key not in answers:
        with undisturbed(model):
            try:
                answers[key] = equal_states(*compute())
            except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
                answers[key] = False  # an architecture that takes no such input says so in many ways
    return bool(answers[key])


def equal_states(left: Tensor, right: Tensor) -> bool:
    """Return whether states [..., D] are equal up to rounding; NaN equals NaN.

    Rounding moves the states of thirty blocks by less than three epsilons of a 16-bit type, or 1e-5 of their
    length. What an architecture does not support moves them further (by .03 where the weights are trained).
    """
    difference = torch.where(left.isnan() & right.isnan(), 0, left - right).float().norm()
    tolerance = max(3 * torch.finfo(left.dtype).eps, 1e-5)
    return bool(difference <= tolerance * right.float().nan_to_num().norm())


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Evaluate without gradients and reduced precision; leave modes and random state as they were."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    device = next(model.parameters()).device.type
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.autocast(device, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True
