"""Quantisation: rounding the weights can undo a change that was smaller than the rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from unremember.audits.attacks import Look, Subject, changed, sweep
from unremember.registry import attacks


@attacks.register("quantisation", paper="Catastrophic Failure of LLM Unlearning via Quantization", arxiv="2410.16454",
                  needs=("forget", "oracle", "original"), fidelity="paper")  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Quantisation:
    """Round every weight matrix to ``bits`` bits: to the nearest of 2^bits - 1 even steps, a scale an output channel."""

    bits: Sequence[int] = (8, 4, 3)
    unit = "bits"

    def run(self, subject: Subject, look: Look) -> None:
        sweep(subject, self.bits, lambda model, amount: changed(model, lambda weight: rounded(weight, amount)), look)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """The weight [out, in], each row on the grid of multiples of its greatest size / (2^(bits-1) - 1)."""
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale
