"""The language task: rows become token ids once, drawn rows become one right-padded forward.

Only the rows that somebody reads reach the output layer: hidden states are gathered at the answer positions first,
and a step that reads only an inner layer stops there. With right padding and causal attention no real token sees
a padding token, so no attention mask is built.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unremember.data.split import Split
from unremember.data.text import Template, Texts, encode
from unremember.engine.ragged import Ragged
from unremember.engine.seams import Need
from unremember.errors import DataError
from unremember.models import causal


@dataclasses.dataclass(frozen=True)
class TextView:
    """Quantities of the drawn rows of one role: ``read(need) -> Ragged`` over answer tokens."""

    values: Mapping[Need, Ragged]

    def read(self, need: Need) -> Ragged:
        return self.values[need]


@dataclasses.dataclass(frozen=True)
class Block:
    """The texts of one role and column in a padded forward: their place, and where their answers are."""

    role: str
    text: str
    first: int
    counts: np.ndarray
    labels_at: np.ndarray


@dataclasses.dataclass(frozen=True)
class Language:
    """Causal language modelling on prompt + answer. Texts are tokenised once, however often they are encoded."""

    tokenizer: Any
    template: Template = dataclasses.field(default_factory=Template)
    context: int | None = None
    encoded: dict[tuple[str, str], Texts] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def digest(self) -> str:
        return self.hashed

    @cached_property
    def hashed(self) -> str:
        text = self.tokenizer.backend_tokenizer.to_str() if hasattr(self.tokenizer, "backend_tokenizer") else str(self.tokenizer)
        return hashlib.sha256(f"{self.template}{text}".encode()).hexdigest()

    def encode(self, split: Split, role: str, texts: Sequence[str]) -> dict[str, Texts]:
        rows = split[role]
        for text in texts:
            if (rows.digest, text) not in self.encoded:
                self.encoded[rows.digest, text] = encode(rows, text, self.tokenizer, self.template, self.context)
        return {text: self.encoded[rows.digest, text] for text in texts}

    def sizes(self, data: dict[str, Texts], text: str) -> tuple[np.ndarray, np.ndarray]:
        if not np.array_equal(data[text].rows, np.arange(len(data[text]))):
            raise DataError(f"column {text!r} holds lists of texts: training takes one text a row")
        return sum(t.lengths for t in data.values()), data[text].counts  # type: ignore[return-value]

    def forward(self, model: Any, parts: Mapping[str, tuple[dict[str, Texts], np.ndarray]],
                needs: Mapping[str, Sequence[Need]]) -> dict[str, TextView]:  # fmt: skip
        ids, blocks = pad(parts, {role: tuple(dict.fromkeys(n.text for n in wanted)) for role, wanted in needs.items()})
        device = next(model.parameters()).device
        tokens = torch.from_numpy(ids).to(device)
        wanted = {need for role in needs for need in needs[role]}
        hidden = {need.layer: None for need in wanted if need.what == "hidden"}
        states: dict[int | None, Tensor] = {layer: causal.hidden_at(model, tokens, layer) for layer in hidden if layer is not None}
        if any(need.what != "hidden" for need in wanted):
            states[None] = causal.last_hidden(model, tokens)
        found: dict[str, dict[Need, Ragged]] = {role: {} for role in needs}
        for need in sorted(wanted, key=str):
            using = [b for b in blocks if b.text == need.text and need in needs[b.role]]
            values = quantity(model, states[need.layer], tokens, need, np.concatenate([b.labels_at for b in using]))
            at = 0
            for block in using:
                size = int(block.counts.sum())
                found[block.role][need] = Ragged(values[at : at + size], torch.from_numpy(block.counts).to(device))
                at += size
        return {role: TextView(values) for role, values in found.items()}


def pad(parts: Mapping[str, tuple[dict[str, Texts], np.ndarray]],
        texts: Mapping[str, Sequence[str]]) -> tuple[np.ndarray, list[Block]]:  # fmt: skip
    """Right-padded ids int64[n, T] of the drawn rows, and one Block a role and text.

    ``labels_at`` are flat positions (row * T + column) of the answer tokens. Masks come from lengths alone.
    """
    chosen = [(role, text, parts[role][0][text], parts[role][1]) for role in texts for text in texts[role]]
    width = max(int(t.lengths[rows].max()) for _, _, t, rows in chosen)
    padded = np.zeros((sum(len(rows) for *_, rows in chosen), width), dtype=np.int64)
    blocks, line = [], 0
    for role, text, encoded, rows in chosen:
        counts = encoded.counts[rows]
        places = []
        for i, row in enumerate(rows):
            begin, stop, start = encoded.offsets[row], encoded.offsets[row + 1], encoded.starts[row]
            padded[line + i, : stop - begin] = encoded.ids[begin:stop]
            places.append(np.arange(start, stop - begin) + (line + i) * width)
        blocks.append(Block(role, text, line, counts, np.concatenate(places)))
        line += len(rows)
    return padded, blocks


def quantity(model: Any, states: Tensor, tokens: Tensor, need: Need, labels_at: np.ndarray) -> Tensor:
    """One need at the answer tokens. A token's log-probability is read one position before it, its own hidden state
    at the token itself."""
    flat = states.reshape(-1, states.shape[-1])
    at = torch.from_numpy(labels_at).to(states.device)
    if need.what == "hidden":
        return flat[at]
    before = flat[at - 1]
    if need.what == "logits":
        return causal.head(model, before).float()
    return causal.token_logprobs(model, before, tokens.reshape(-1)[at])
