"""Cross-entropy and divergence to whole distributions: what KL, UNDIAL and CE-U are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unremember.models.causal import READ_BUDGET


def soft_cross_entropy(logits: Tensor, teacher: Tensor, divergence: bool = False) -> Tensor:
    """Return float[M], the cross-entropy of softmax(``logits``) to softmax(``teacher``).

    With gradients, nothing of size M x V is kept beside the two, and the backward pass makes one more: the
    gradient. It is exactly zero where both are equal. No gradient reaches the teacher.

    Args:
        logits: float[M, V].
        teacher: float[M, V].
        divergence: Subtract the teacher's entropy: KL(teacher ‖ model).
    """
    if torch.is_grad_enabled():
        return _SoftCrossEntropy.apply(logits, teacher, divergence)
    return _cross_entropy_rows(logits, teacher, divergence)


def _cross_entropy_rows(logits: Tensor, teacher: Tensor, divergence: bool) -> Tensor:
    logprobs = logits.log_softmax(-1)
    if divergence:
        target = teacher.log_softmax(-1)
        return (target.exp() * (target - logprobs)).sum(-1)
    return -(teacher.softmax(-1) * logprobs).sum(-1)


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher: Tensor, divergence: bool) -> Tensor:
        ctx.size = max(1, READ_BUDGET // logits.shape[-1])
        ctx.save_for_backward(logits, teacher)
        chunks = zip(logits.split(ctx.size), teacher.split(ctx.size))
        return torch.cat([_cross_entropy_rows(*chunk, divergence) for chunk in chunks])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, teacher = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        chunks = (values.split(ctx.size) for values in (gradient, logits, teacher, grads[0][:, None]))
        for out, student, target, scale in zip(*chunks):
            torch.sub(student.softmax(-1), target.softmax(-1), out=out).mul_(scale)
        return gradient, None, None
