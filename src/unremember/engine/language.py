"""The language task: rows become token ids once, drawn rows become one forward, end to end and without padding.

Only the rows that somebody reads reach the output layer: hidden states are gathered at the answer positions first,
and a step that reads only an inner layer stops there.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
    """The texts of one role and column in a forward: their answers' tokens, and where in it these are."""

    role: str
    text: str
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
        ids, lengths, blocks = join(parts, {role: tuple(dict.fromkeys(n.text for n in wanted)) for role, wanted in needs.items()})
        device = next(model.parameters()).device
        tokens = torch.from_numpy(ids).to(device)
        wanted = {need for role in needs for need in needs[role]}
        depths = {need.layer if need.what == "hidden" else None for need in wanted}
        states = {layer: causal.hidden_of_rows(model, tokens, lengths, layer) for layer in depths}
        found: dict[str, dict[Need, Ragged]] = {role: {} for role in needs}
        for need in sorted(wanted, key=str):  # logits come before the log-probabilities that can be read from them
            using = [b for b in blocks if b.text == need.text and need in needs[b.role]]
            logits = [seen.values for b in using if (seen := found[b.role].get(dataclasses.replace(need, what="logits")))]
            places = np.concatenate([b.labels_at for b in using])
            if need.what == "logprobs" and len(logits) == len(using):
                values = -F.cross_entropy(torch.cat(logits), tokens[torch.from_numpy(places).to(device)], reduction="none")
            else:
                values = quantity(model, states[need.layer], tokens, need, places)
            at = 0
            for block in using:
                size = int(block.counts.sum())
                found[block.role][need] = Ragged(values[at : at + size], torch.from_numpy(block.counts).to(device))
                at += size
        return {role: TextView(values) for role, values in found.items()}

    def lasting(self, model: Any, need: Need) -> tuple[Need, Callable[[Tensor], Tensor] | None]:
        """Of logits the final states are kept, D numbers a token in place of V, with a copy of the output layer."""
        if need.what != "logits":
            return need, None
        config, output = model.config, copy.deepcopy(model.get_output_embeddings()).requires_grad_(False)
        dtype = next(output.parameters()).dtype
        return dataclasses.replace(need, what="states"), lambda states: causal.scaled(config, output(states.to(dtype))).float()


def join(parts: Mapping[str, tuple[dict[str, Texts], np.ndarray]],
         texts: Mapping[str, Sequence[str]]) -> tuple[np.ndarray, list[int], list[Block]]:  # fmt: skip
    """The drawn rows' ids end to end int64[N], each row's length, and one Block a role and text.

    ``labels_at`` are the positions of the answer tokens.
    """
    ids: list[np.ndarray] = []
    lengths: list[int] = []
    blocks = []
    for role, text in [(role, text) for role, columns in texts.items() for text in columns]:
        encoded, rows = parts[role][0][text], parts[role][1]
        sizes, counts, first = encoded.lengths[rows], encoded.counts[rows], sum(lengths)
        ids += [encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]] for row in rows]
        ends = first + np.cumsum(sizes)
        blocks.append(Block(role, text, counts, np.concatenate([np.arange(end - n, end) for end, n in zip(ends, counts)])))
        lengths += sizes.tolist()
    return np.concatenate(ids), lengths, blocks


def quantity(model: Any, states: Tensor, tokens: Tensor, need: Need, labels_at: np.ndarray) -> Tensor:
    """One need at the answer tokens. A token's log-probability is read one position before it, its own hidden state
    at the token itself."""
    at = torch.from_numpy(labels_at).to(states.device)
    if need.what == "hidden":
        return states[at]
    if need.what == "labels":
        return tokens[at]
    if need.what == "states":
        return states[at - 1]
    if need.what == "logits":
        return causal.head(model, states[at - 1]).float()
    return causal.token_logprobs(model, states[at - 1], tokens[at])
