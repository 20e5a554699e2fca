"""Activation patching: what the model's inner states still tell the original's last blocks."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from typing import Any

import torch

from unremember.audits.attacks import Evaluate, Subject, evaluate_amounts
from unremember.errors import ConfigError
from unremember.models import causal
from unremember.registry import attacks


@attacks.register(
    "patching",
    paper="Patchscopes: A Unifying Framework for Inspecting Hidden Representations of Language Models",
    arxiv="2401.06102",
    needs=("forget", "oracle", "original"),
    taxonomy="evaluation.recovery",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class Patching:
    """Pass the states after the model's first blocks to the original's later ones; the first are the amount.

    What only the last blocks hide is recovered whole. An oracle from other initial weights has other inner
    states, so it stands for a model whose states tell the original nothing. An oracle retrained from the
    original's own initial weights is the sharper control.
    """

    unit = "blocks"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        depths = range(1, len(causal.decoder_blocks(subject.artefact.model)))
        evaluate_amounts(subject, depths, partial(splice_blocks, subject.original.model), evaluate)


def splice_blocks(original: Any, model: Any, depth: int) -> Any:
    """Return a copy of ``original`` whose embeddings and first ``depth`` blocks are those of ``model``.

    Raises:
        ConfigError: The two models do not have the same shape.
    """
    if spliced_shapes(model) != spliced_shapes(original):
        raise ConfigError("patching needs a model and an original of the same shape")
    spliced = copy.deepcopy(original)
    output = copy.deepcopy(original.get_output_embeddings())
    spliced.set_input_embeddings(copy.deepcopy(model.get_input_embeddings()))
    spliced.set_output_embeddings(output)
    spliced.config.tie_word_embeddings = False
    blocks = causal.decoder_blocks(spliced)
    for i in range(depth):
        blocks[i] = copy.deepcopy(causal.decoder_blocks(model)[i])
    return spliced


def spliced_shapes(model: Any) -> list[torch.Size]:
    """Return the shapes of the weights that are exchanged: those of the embeddings and of the blocks."""
    parts = [model.get_input_embeddings(), *causal.decoder_blocks(model)]
    return [weight.shape for part in parts for weight in part.parameters()]
