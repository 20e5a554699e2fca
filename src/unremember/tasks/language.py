"""The language task: rows become token ids once, drawn rows one forward without padding.

Only the rows that somebody reads reach the output layer: hidden states are gathered at the answer positions
first, and a step that reads only an inner layer stops there.
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
from unremember.errors import ConfigError, DataError, ModelError
from unremember.models import causal
from unremember.models.head import Head, head
from unremember.models.load import load_model, save_model
from unremember.registry import tasks
from unremember.tasks.protocol import Need
from unremember.tasks.ragged import Ragged
from unremember.tasks.sampling import sample_texts
from unremember.tasks.spans import find_spans
from unremember.tasks.text import CHAT, Template, Texts, encode_texts
from unremember.tasks.tokenizers import check_tokenizer, load_tokenizer


@dataclasses.dataclass(frozen=True)
class TextView:
    """Quantities of the drawn rows of one role, over their answer tokens."""

    values: Mapping[Need, Ragged]

    def read(self, need: Need) -> Ragged:
        """Return a quantity that was declared before the forward."""
        return self.values[need]


@dataclasses.dataclass(frozen=True)
class TextBlock:
    """The texts of one role and column in a forward.

    ``counts`` int64[B] are the answer tokens of each, ``positions`` int64[M] where in the forward these
    stand.
    """

    role: str
    text: str
    counts: np.ndarray
    positions: np.ndarray


@tasks.register("language", fidelity="own", architectures="ForCausalLM")
@dataclasses.dataclass(frozen=True)
class LanguageTask:
    """Causal language modelling on prompt + answer.

    Texts are tokenised once, however often they are encoded. ``context`` is the most tokens that the model
    takes (None: no bound is known).
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
    def of(cls, model: Any, tokenizer: Any, template: str | Mapping[str, Any] | None = None) -> LanguageTask:
        """Return the task of a model; ``template=None`` is the default prompt template.

        Raises:
            ModelError: The model is no decoder, or the tokenizer does not fit it.
            ConfigError: The template is that of a chat, and the tokenizer has none.
        """
        prompt = Template.of(template)
        check_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0], prompt.prompt == CHAT)
        causal.check_decoder(model)
        causal.packs(model, 1)  # probed here: processes that train together need not meet it at one step
        return cls(tokenizer, prompt, causal.context_length(model))

    @classmethod
    def load(cls, name: str, template: str | Mapping[str, Any] | None = None) -> tuple[Any, LanguageTask]:
        """Load a causal language model and its task; ``template`` overrides the stored prompt template."""
        model, tokenizer, record = load_model(name), load_tokenizer(name), Path(name) / "task.json"
        if template is None and record.is_file():
            template = json.loads(record.read_text(encoding="utf-8")).get("template")
        return model, cls.of(model, tokenizer, template)

    def save(self, model: Any, folder: Path) -> None:
        """Write model, tokenizer and prompt template to a folder that transformers loads.

        Raises:
            ModelError: Adapters are still in the model: what is saved could not be loaded again.
        """
        if hasattr(model, "peft_config"):
            raise ModelError(
                "adapters are still in the model, which cannot be saved with them: "
                "train with selection.keep=false, so that they are merged into the weights"
            )
        record = json.dumps({"task": self.name, "template": self.template.spec})
        save_model(model, self.tokenizer, folder, {"task.json": record})

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the tokenizer, its special tokens, its chat template and the prompt template."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        parts = [
            f"{self.template}{self.template.variables or ''}",
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

    def sample(self, model: Any, prompts: Sequence[str], count: int, limit: int) -> list[list[str]]:
        """Return ``count`` continuations of each prompt at temperature 1, cut at the first line break."""
        return sample_texts(model, self.tokenizer, prompts, count, limit)

    def token_spans(self, split: Split, role: str, text: str, column: str) -> np.ndarray:
        """Return int64[n, 2]: token start and stop of the first occurrence of its row's ``column``."""
        texts = self.encode(split, role, [text])[text]
        return find_spans(split[role], texts, column, self.tokenizer, self.template)

    def harness_model(self, model: Any) -> Any:
        """Return a model in the form that lm-eval runs."""
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=model, tokenizer=self.tokenizer, batch_size=32)

    def check(self, needs: Sequence[Need]) -> None:
        """Raise ConfigError for a need of images, and for hidden states of no layer."""
        for need in needs:
            if need.text == "input":
                raise ConfigError("a language model has texts, no images: choose a loss for texts (nll)")
            if need.what == "hidden" and need.layer is None:
                raise ConfigError("hidden states are read after a block: give its number as layer")

    def encode(self, split: Split, role: str, texts: Sequence[str]) -> dict[str, Texts]:
        """Tokenise some columns of a role's rows, each once."""
        rows = split[role]
        for text in texts:
            if (rows.digest, text) not in self.encoded:
                encoded = encode_texts(rows, text, self.tokenizer, self.template, self.context)
                self.encoded[rows.digest, text] = encoded
        return {text: self.encoded[rows.digest, text] for text in texts}

    def sizes(self, data: dict[str, Texts], text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return int64[n] twice: the tokens of each row in all columns, its answer tokens in one."""
        if not np.array_equal(data[text].rows, np.arange(len(data[text]))):
            raise DataError(f"column {text!r} holds lists of texts: training takes one text a row")
        return sum(t.lengths for t in data.values()), data[text].counts  # type: ignore[return-value]

    def forward(
        self,
        model: Any,
        parts: Mapping[str, tuple[dict[str, Texts], np.ndarray]],
        needs: Mapping[str, Sequence[Need]],
    ) -> dict[str, TextView]:
        """Run the drawn texts of all roles as one packed forward, up to the deepest layer read."""
        columns = {
            role: tuple(dict.fromkeys(n.text for n in role_needs)) for role, role_needs in needs.items()
        }
        ids, lengths, blocks = pack(parts, columns)
        tokens = torch.from_numpy(ids).to(next(model.parameters()).device)
        every = {need for role_needs in needs.values() for need in role_needs}
        depths = {need.layer if need.what == "hidden" else None for need in every}
        states = causal.hidden_of_rows(model, tokens, lengths, list(depths))
        views: dict[str, dict[Need, Ragged]] = {role: {} for role in needs}
        for need in sorted(
            every, key=str
        ):  # logits come before the log-probabilities that can be read from them
            reading = [block for block in blocks if block.text == need.text and need in needs[block.role]]
            values = read_need(model, states[need.layer], tokens, need, reading, views)
            for block, part in zip(reading, values.split([int(block.counts.sum()) for block in reading])):
                views[block.role][need] = Ragged(part, torch.from_numpy(block.counts).to(tokens.device))
        return {role: TextView(values) for role, values in views.items()}

    def compact(self, model: Any, need: Need) -> tuple[Need, Callable[[Tensor], Tensor] | None]:
        """Store final states (D numbers a token) in place of logits (V), with a copy of the output layer."""
        if need.what != "logits":
            return need, None
        frozen = copy.deepcopy(Head(model))
        weights = list(frozen.model.requires_grad_(False).parameters())

        def logits_of(states: Tensor) -> Tensor:
            return frozen(states.to(weights[0].dtype)).float()

        return dataclasses.replace(need, what="states"), logits_of


def pack(
    parts: Mapping[str, tuple[dict[str, Texts], np.ndarray]], columns: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, list[int], list[TextBlock]]:
    """Lay the drawn texts end to end.

    Args:
        parts: By role: its encoded columns, and the drawn rows int64[B].
        columns: By role: the columns that are read.

    Returns:
        The ids int64[N], the length of each text, and a block for each role and column.
    """
    ids: list[np.ndarray] = []
    lengths: list[int] = []
    blocks = []
    for role, text in [(role, text) for role, texts in columns.items() for text in texts]:
        encoded, rows = parts[role][0][text], parts[role][1]
        sizes, counts, first = encoded.lengths[rows], encoded.counts[rows], sum(lengths)
        ids += [encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]] for row in rows]
        ends = first + np.cumsum(sizes)
        positions = np.concatenate([np.arange(end - n, end) for end, n in zip(ends, counts)])
        blocks.append(TextBlock(role, text, counts, positions))
        lengths += sizes.tolist()
    return np.concatenate(ids), lengths, blocks


def read_need(
    model: Any,
    states: Tensor,
    tokens: Tensor,
    need: Need,
    blocks: Sequence[TextBlock],
    views: Mapping[str, Mapping[Need, Ragged]],
) -> Tensor:
    """Read one need of some blocks from the states [N, D] of a forward.

    Log-probabilities come from the logits where all blocks have read these already."""
    positions = torch.from_numpy(np.concatenate([block.positions for block in blocks])).to(tokens.device)
    if need.what == "logprobs":
        as_logits = dataclasses.replace(need, what="logits")
        logits = [views[block.role][as_logits].values for block in blocks if as_logits in views[block.role]]
        if len(logits) == len(blocks):
            return -F.cross_entropy(torch.cat(logits), tokens[positions], reduction="none")
    return quantity(model, states, tokens, need, positions)


def quantity(model: Any, states: Tensor, tokens: Tensor, need: Need, positions: Tensor) -> Tensor:
    """Return one need at the answer tokens, whose ``positions`` in the forward are int64[M].

    A token's log-probability is read one position before it, its own hidden state at the token itself.
    """
    if need.what == "hidden":
        return states[positions]
    if need.what == "labels":
        return tokens[positions]
    if need.what == "states":
        return states[positions - 1]
    if need.what == "logits":
        return head(model, states[positions - 1]).float()
    return causal.token_logprobs(model, states[positions - 1], tokens[positions])
