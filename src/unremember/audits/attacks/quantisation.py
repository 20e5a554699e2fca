"""Quantisation: rounding the weights can undo a change that was smaller than the rounding."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from unremember.audits.attacks import Evaluate, Subject, evaluate_amounts, with_changed_weights
from unremember.errors import ConfigError
from unremember.registry import attacks

GROUP = 32
"""Weights that share a scale below 8 bits."""


@attacks.register(
    "quantisation",
    paper="Catastrophic Failure of LLM Unlearning via Quantization",
    arxiv="2410.16454",
    needs=("forget", "oracle", "original"),
    taxonomy="evaluation.recovery",
    fidelity="paper",
)
@dataclasses.dataclass(frozen=True)
class Quantisation:
    """Store the weights in ``bits`` bits.

    ``by="rounding"`` rounds every weight matrix to the nearest of 2^bits - 1 even steps, a scale an output channel.
    ``by="torchao"`` lets torchao (extra ``[quant]``) quantise what it serves: the linear layers, to 8 bits a scale an output
    channel, to fewer one for 32 weights (for a channel, where 32 do not divide a layer's inputs); embeddings stay.
    """

    bits: Sequence[int] = (8, 4, 3)
    by: Literal["rounding", "torchao"] = "rounding"
    unit = "bits"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        change = (
            served
            if self.by == "torchao"
            else lambda model, bits: with_changed_weights(model, lambda weight: rounded(weight, bits))
        )
        evaluate_amounts(subject, self.bits, change, evaluate)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """The weight [out, in], each row on the grid of multiples of its greatest size / (2^(bits-1) - 1)."""
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


def served(model: Any, bits: int) -> Any:
    """A copy with the weights that torchao's weight-only quantisation multiplies with. Raises ConfigError without torchao."""
    try:
        from torchao.quantization import (
            Int8WeightOnlyConfig,
            IntxWeightOnlyConfig,
            PerAxis,
            PerGroup,
            quantize_,
        )
    except ImportError as error:
        raise ConfigError(
            "quantisation by torchao needs it: pip install 'unremember[quant]', or attack.by=rounding"
        ) from error
    made = copy.deepcopy(model)
    layers = [module for module in made.modules() if isinstance(module, torch.nn.Linear)]
    granularity = PerAxis(0) if any(layer.in_features % GROUP for layer in layers) else PerGroup(GROUP)
    quantize_(
        made,
        Int8WeightOnlyConfig()
        if bits == 8
        else IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity),
    )
    for layer in layers:
        layer.weight = torch.nn.Parameter(layer.weight.dequantize(), requires_grad=False)
    return made
