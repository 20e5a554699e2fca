"""Activation patching: what the inner states of the model still tell the original's last blocks."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

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
    """The states after some blocks of the model go on through the original's other blocks: the model's blocks are the amount.

    What only the last blocks hide comes out whole. An oracle from other initial weights speaks another inner language, so what
    it stands for is a model whose states say nothing to the original; retrained from the original's own initial
    weights it is the sharper control.
    """

    unit = "blocks"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        depths = range(1, len(causal.decoder_blocks(subject.artefact.model)))
        evaluate_amounts(
            subject, depths, lambda model, depth: stitched(model, subject.original.model, depth), evaluate
        )


def stitched(model: Any, original: Any, depth: int) -> Any:
    """The first ``depth`` blocks of ``model``, with its embeddings, and what follows of ``original``. Copies of both.

    Raises ConfigError where the two are not of one shape.
    """
    made = copy.deepcopy(original)
    shapes = [{name: p.shape for name, p in one.named_parameters()} for one in (model, original)]
    if shapes[0] != shapes[1]:
        raise ConfigError("patching needs a model and an original of the same shape")
    output = copy.deepcopy(original.get_output_embeddings())
    made.set_input_embeddings(copy.deepcopy(model.get_input_embeddings()))
    made.set_output_embeddings(output)
    made.config.tie_word_embeddings = False
    blocks = causal.decoder_blocks(made)
    for at in range(depth):
        blocks[at] = copy.deepcopy(causal.decoder_blocks(model)[at])
    return made
