"""Gradient norms: how far one text would move the weights. A remembered text hardly moves them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch

from unremember.models import causal
from unremember.observe.protocol import Arrays, ObservationContext, RoleRequest
from unremember.processes import map_over_processes
from unremember.progress import Progress
from unremember.registry import observations
from unremember.tasks.text import Texts


@observations.register("gradient_norms", needs=("gradients",))
@dataclasses.dataclass(frozen=True)
class GradientNorms(RoleRequest):
    """The size of the gradient of each text's mean loss: the mean over the weight tensors of its 2-norm.

    The value is float64[n], for n texts.

    Args:
        role: The role whose rows are read.
        text: The column whose loss is differentiated.
    """

    text: str = "answer"

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> dict[Self, Arrays]:
        """Run one backward pass for each text."""
        arrays: dict[Self, Arrays] = {}
        for request in requests:
            texts = context.task.encode(context.split, request.role, [request.text])[request.text]
            arrays[request] = {"values": norms_of_gradients(context.model, texts, context.quiet)}
        return arrays


def norms_of_gradients(model: Any, texts: Texts, quiet: bool = False) -> np.ndarray:
    """Return float64[n], the size of each text's gradient. The model keeps its own gradients and flags."""
    parameters = list(model.parameters())
    flags = [parameter.requires_grad for parameter in parameters]
    norms: list[float] = []
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with Progress("gradients", len(texts), quiet=quiet) as progress:
            scattered = map_over_processes(range(len(texts)), partial(norm_of_gradient, model, texts))
            for length, norm in zip(texts.lengths.tolist(), scattered):
                norms.append(norm)
                progress.advance(1, length)
    finally:
        for parameter, flag in zip(parameters, flags):
            parameter.requires_grad_(flag)
    return np.array(norms)


def norm_of_gradient(model: Any, texts: Texts, i: int) -> float:
    """Return the mean over the weight tensors of the 2-norm of the gradient of text i's mean loss."""
    parameters = list(model.parameters())
    device, start = parameters[0].device, texts.starts[i]
    ids = torch.from_numpy(texts.ids[texts.offsets[i] : texts.offsets[i + 1]]).to(device)
    hidden = causal.last_hidden(model, ids[None])[0, start - 1 : -1]
    loss = -causal.token_logprobs(model, hidden, ids[start:]).mean()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norms = torch.stack([gradient.norm() for gradient in gradients if gradient is not None])
    return float(norms.sum()) / len(parameters)
