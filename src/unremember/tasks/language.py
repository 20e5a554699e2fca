"""The language task: rows become token ids once, drawn rows become one forward, end to end and without padding.

Only the rows that somebody reads reach the output layer: hidden states are gathered at the answer positions first,
and a step that reads only an inner layer stops there.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unremember.data.split import Row, Split
from unremember.errors import ConfigError, DataError
from unremember.models import causal
from unremember.models.load import load_model, save_model
from unremember.registry import tasks
from unremember.tasks.protocol import Need
from unremember.tasks.ragged import Ragged
from unremember.tasks.text import Template, Texts, encode
from unremember.tasks.tokenizers import load_tokenizer


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


@tasks.register("language", fidelity="own", architectures="ForCausalLM")
@dataclasses.dataclass(frozen=True)
class LanguageTask:
    """Causal language modelling on prompt + answer.

    Texts are tokenised once, however often they are encoded. ``context`` is the most tokens that the model takes (None:
    no bound is known).
    """

    tokenizer: Any
    template: Template = dataclasses.field(default_factory=Template)
    context: int | None = None
    encoded: dict[tuple[str, str], Texts] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    name: ClassVar[str] = "language"
    training_loss: ClassVar[str] = "nll"

    @classmethod
    def of(cls, model: Any, tokenizer: Any, template: str | None = None) -> LanguageTask:
        """Return the task of a model: its tokenizer, a prompt template (None: the default), its context length."""
        context = getattr(model.config, "max_position_embeddings", None)
        return cls(tokenizer, Template() if template is None else Template(template), context)

    @classmethod
    def load(cls, name: str, template: str | None = None) -> tuple[Any, LanguageTask]:
        """Load a causal language model and its task; ``template`` overrides the prompt that the folder records."""
        model, tokenizer, record = load_model(name), load_tokenizer(name), Path(name) / "task.json"
        if template is None and record.is_file():
            template = json.loads(record.read_text(encoding="utf-8")).get("template")
        return model, cls.of(model, tokenizer, template)

    def save(self, model: Any, folder: Path) -> None:
        """Write model, tokenizer and prompt template to a folder that transformers loads."""
        record = json.dumps({"task": self.name, "template": self.template.prompt})
        save_model(model, self.tokenizer, folder, {"task.json": record})

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the tokenizer, its special tokens, its chat template and the prompt template."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        parts = [
            str(self.template),
            backend.to_str() if backend is not None else str(self.tokenizer),
            str(getattr(self.tokenizer, "special_tokens_map", "")),
            str(getattr(self.tokenizer, "chat_template", "")),
        ]
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()

    def describe(self, model: Any) -> str:
        """Say how many tokens a model knows."""
        return f"{model.config.get_text_config().vocab_size} tokens"

    @property
    def end(self) -> int:
        """The id of the token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    def prompt(self, row: Row) -> str:
        """Return the prompt of a row as text."""
        return self.template.render(row, self.tokenizer)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of some token ids, without special tokens and surrounding blanks."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def check(self, needs: Sequence[Need]) -> None:
        """Raise ConfigError for a need of images, and for hidden states of no layer."""
        for need in needs:
            if need.text == "input":
                raise ConfigError("a language model has texts, no images: choose a loss for texts (nll)")
            if need.what == "hidden" and need.layer is None:
                raise ConfigError("hidden states are read after a block: give its number as layer")

    def encode(self, split: Split, role: str, texts: Sequence[str]) -> dict[str, Texts]:
        rows = split[role]
        for text in texts:
            if (rows.digest, text) not in self.encoded:
                self.encoded[rows.digest, text] = encode(
                    rows, text, self.tokenizer, self.template, self.context
                )
        return {text: self.encoded[rows.digest, text] for text in texts}

    def sizes(self, data: dict[str, Texts], text: str) -> tuple[np.ndarray, np.ndarray]:
        if not np.array_equal(data[text].rows, np.arange(len(data[text]))):
            raise DataError(f"column {text!r} holds lists of texts: training takes one text a row")
        return sum(t.lengths for t in data.values()), data[text].counts  # type: ignore[return-value]

    def forward(
        self,
        model: Any,
        parts: Mapping[str, tuple[dict[str, Texts], np.ndarray]],
        needs: Mapping[str, Sequence[Need]],
    ) -> dict[str, TextView]:
        ids, lengths, blocks = join(
            parts, {role: tuple(dict.fromkeys(n.text for n in wanted)) for role, wanted in needs.items()}
        )
        device = next(model.parameters()).device
        tokens = torch.from_numpy(ids).to(device)
        wanted = {need for role in needs for need in needs[role]}
        depths = {need.layer if need.what == "hidden" else None for need in wanted}
        states = causal.hidden_of_rows(model, tokens, lengths, list(depths))
        found: dict[str, dict[Need, Ragged]] = {role: {} for role in needs}
        for need in sorted(
            wanted, key=str
        ):  # logits come before the log-probabilities that can be read from them
            using = [b for b in blocks if b.text == need.text and need in needs[b.role]]
            logits = [
                seen.values
                for b in using
                if (seen := found[b.role].get(dataclasses.replace(need, what="logits")))
            ]
            places = np.concatenate([b.labels_at for b in using])
            if need.what == "logprobs" and len(logits) == len(using):
                values = -F.cross_entropy(
                    torch.cat(logits), tokens[torch.from_numpy(places).to(device)], reduction="none"
                )
            else:
                values = quantity(model, states[need.layer], tokens, need, places)
            at = 0
            for block in using:
                size = int(block.counts.sum())
                found[block.role][need] = Ragged(
                    values[at : at + size], torch.from_numpy(block.counts).to(device)
                )
                at += size
        return {role: TextView(values) for role, values in found.items()}

    def compact(self, model: Any, need: Need) -> tuple[Need, Callable[[Tensor], Tensor] | None]:
        """Store final states in place of logits: D numbers a token instead of V, and a copy of the output layer."""
        if need.what != "logits":
            return need, None
        config, output = model.config, copy.deepcopy(model.get_output_embeddings()).requires_grad_(False)
        dtype = next(output.parameters()).dtype
        return dataclasses.replace(need, what="states"), lambda states: causal.scaled(
            config, output(states.to(dtype))
        ).float()


def join(
    parts: Mapping[str, tuple[dict[str, Texts], np.ndarray]], texts: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, list[int], list[Block]]:
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
        blocks.append(
            Block(
                role, text, counts, np.concatenate([np.arange(end - n, end) for end, n in zip(ends, counts)])
            )
        )
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
