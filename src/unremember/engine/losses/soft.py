"""Cross-entropy and divergence to whole distributions: what KL, UNDIAL and CE-U are made of. Not a loss by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unremember.models.causal import READ_BUDGET


def soft_cross_entropy(logits: Tensor, teacher: Tensor, divergence: bool = False) -> Tensor:
    """float[M]: cross-entropy of softmax(``logits``) to softmax(``teacher``), both [M, V]; no gradient reaches the teacher.

    With ``divergence`` less the teacher's entropy: KL(teacher ‖ model). Where gradients are wanted, nothing of size M x V is
    kept beside the two, and the backward pass makes one more: the gradient. It is exactly zero where both are equal.
    """
    return (
        _Soft.apply(logits, teacher, divergence)
        if torch.is_grad_enabled()
        else rows(logits, teacher, divergence)
    )


def rows(logits: Tensor, teacher: Tensor, divergence: bool) -> Tensor:
    said = logits.log_softmax(-1)
    if divergence:
        wanted = teacher.log_softmax(-1)
        return (wanted.exp() * (wanted - said)).sum(-1)
    return -(teacher.softmax(-1) * said).sum(-1)


class _Soft(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher: Tensor, divergence: bool) -> Tensor:
        ctx.size = max(1, READ_BUDGET // logits.shape[-1])
        ctx.save_for_backward(logits, teacher)
        return torch.cat(
            [rows(*part, divergence) for part in zip(logits.split(ctx.size), teacher.split(ctx.size))]
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, teacher = ctx.saved_tensors
        change = torch.empty_like(logits)
        for part, mine, theirs, grad in zip(
            *(values.split(ctx.size) for values in (change, logits, teacher, grads[0][:, None]))
        ):
            torch.sub(mine.softmax(-1), theirs.softmax(-1), out=part).mul_(grad)
        return change, None, None
