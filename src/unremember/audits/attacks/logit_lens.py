"""The logit lens: what the inner layers would say if they were the last."""

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
    """Leave out the last blocks and read the states before them; the amount is the number of blocks left.

    The original through the same lens is the scale: at a depth where it says nothing, the audit says nothing
    either.
    """

    unit = "blocks"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        depths = range(1, len(causal.decoder_blocks(subject.artefact.model)))
        evaluate_amounts(subject, depths, keep_first_blocks, evaluate)


def keep_first_blocks(model: Any, depth: int) -> Any:
    """Return a copy of the model's first ``depth`` blocks, with its norm and its output layer."""
    changed = copy.deepcopy(model)
    blocks, config = causal.decoder_blocks(changed), changed.config
    del blocks[depth:]
    config.num_hidden_layers = depth
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:depth]
    return changed
