"""Values per token of a batch of texts of unequal length, without padding."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Ragged:
    """``values`` Tensor[M, …], one entry a token; ``counts`` int64 Tensor[B], the tokens of each example."""

    values: Tensor
    counts: Tensor

    def sum(self) -> Tensor:
        """Tensor[B, …]: sums over each example's tokens (0 for an example without tokens)."""
        owner = torch.repeat_interleave(
            torch.arange(len(self.counts), device=self.values.device), self.counts
        )
        out = torch.zeros(
            len(self.counts), *self.values.shape[1:], dtype=self.values.dtype, device=self.values.device
        )
        return out.index_add(0, owner, self.values)

    def mean(self) -> Tensor:
        """Tensor[B, …]: means over each example's tokens."""
        count = self.counts.clamp(min=1).to(self.values.dtype)
        return self.sum() / count.view(-1, *[1] * (self.values.dim() - 1))
