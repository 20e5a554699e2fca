"""Quantisation: rounding the weights can undo a change that was smaller than the rounding."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from unremember.audits.attacks import Evaluate, Subject, evaluate_amounts, with_changed_weights
from unremember.errors import ConfigError
from unremember.registry import attacks

_GROUP = 32
"""Weights that share a scale below 8 bits."""
_MOST_BITS = {"rounding": 32, "torchao": 8}
"""The most bits that a weight can be stored in, by how it is quantised."""


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
    """Store the weights in fewer bits: the bits of a weight are the amount.

    Args:
        bits: The bits of a weight, at each point.
        by: ``rounding`` rounds every weight matrix to the nearest of 2^bits - 1 even steps, with a scale for
            each output channel. ``torchao`` (extra ``[quant]``) quantises the linear layers as torchao serves
            them: to 8 bits with a scale for each output channel, to fewer with one for 32 weights, or for a
            channel where 32 do not divide a layer's inputs. Embeddings stay.
    """

    bits: Sequence[int] = (8, 4, 3)
    by: Literal["rounding", "torchao"] = "rounding"
    unit = "bits"

    def __post_init__(self) -> None:
        most = _MOST_BITS[self.by]
        if not self.bits or not all(2 <= bits <= most for bits in self.bits):
            raise ConfigError(f"bits must list one or more numbers from 2 to {most}, not {list(self.bits)}")

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        change = quantise_with_torchao if self.by == "torchao" else round_model
        evaluate_amounts(subject, self.bits, change, evaluate)


def round_model(model: Any, bits: int) -> Any:
    """Return a copy of the model with every weight matrix rounded."""
    return with_changed_weights(model, partial(round_weight, bits=bits))


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """Return a weight [out, in], each row rounded to multiples of its greatest size / (2^(bits-1) - 1)."""
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


def quantise_with_torchao(model: Any, bits: int) -> Any:
    """Return a copy with the weights that torchao's weight-only quantisation multiplies with.

    Raises:
        ConfigError: torchao is not installed.
    """
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
    changed = copy.deepcopy(model)
    layers = [module for module in changed.modules() if isinstance(module, torch.nn.Linear)]
    granularity = PerAxis(0) if any(layer.in_features % _GROUP for layer in layers) else PerGroup(_GROUP)
    if bits == 8:
        config = Int8WeightOnlyConfig()
    else:
        config = IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity)
    quantize_(changed, config)
    for layer in layers:
        layer.weight = torch.nn.Parameter(layer.weight.dequantize(), requires_grad=False)
    return changed
