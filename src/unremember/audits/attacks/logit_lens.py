"""The logit lens: what the inner layers would say, were they the last."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from unremember.audits.attacks import Evaluate, Subject, evaluate_amounts
from unremember.models import causal
from unremember.registry import attacks


@attacks.register(
    "logit_lens",
    paper="Eliciting Latent Predictions from Transformers with the Tuned Lens",
    arxiv="2303.08112",
    needs=("forget", "oracle", "original"),
    taxonomy="evaluation.recovery",
    fidelity="paper",
)
@dataclasses.dataclass(frozen=True)
class LogitLens:
    """Leave the last blocks out: the blocks that are left are the amount, and the output layer reads them as they are.

    The original through the same lens is the scale: where it says nothing at a depth, neither does the audit.
    """

    unit = "blocks"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        evaluate_amounts(
            subject, range(1, len(causal.decoder_blocks(subject.artefact.model))), shortened, evaluate
        )


def shortened(model: Any, depth: int) -> Any:
    """A copy of the model's first ``depth`` blocks, with its norm and its output layer."""
    made = copy.deepcopy(model)
    blocks, config = causal.decoder_blocks(made), made.config
    del blocks[depth:]
    config.num_hidden_layers = depth
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:depth]
    return made
