"""Hidden states: the output of some blocks at some position of each text, which probes are fitted to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from unremember.errors import ConfigError
from unremember.models import causal
from unremember.observe.protocol import Arrays, ObservationContext, RoleRequest
from unremember.progress import Progress
from unremember.registry import observations
from unremember.tasks.text import Texts

_ROWS = 32
"""Texts in one forward."""
Position = Literal["prompt_end", "answer", "span"]


@observations.register("hidden_states", needs=("hidden states",))
@dataclasses.dataclass(frozen=True)
class HiddenStates(RoleRequest):
    """Hidden states after some blocks, at one position of each text.

    The value is float32[n, L, D], for n texts and L layers of width D.

    Args:
        role: The role whose rows are read.
        text: The column behind the prompt.
        layers: The blocks whose output is read, negative numbers from the end; none named: all of them.
        position: ``prompt_end`` reads the last token of each row's prompt (n counts rows). ``answer`` takes
            the mean over the answer's tokens, with the one that ends it. ``span`` takes the mean over the
            tokens of the first occurrence of the row's column ``span`` in prompt and answer.
        span: The column whose value ``span`` looks for, such as ``entity``.

    Raises:
        ConfigError: The position is unknown, or ``span`` is missing or superfluous.
    """

    text: str = "answer"
    layers: tuple[int, ...] = ()
    position: Position = "prompt_end"
    span: str = ""

    def __post_init__(self) -> None:
        if self.position not in get_args(Position):
            raise ConfigError(f"position={self.position!r}: choose one of {', '.join(get_args(Position))}")
        if bool(self.span) != (self.position == "span"):
            raise ConfigError("give span=COLUMN with position='span', and with no other position")

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> dict[Self, Arrays]:
        """Read all layers and positions of a role's texts in one pass; prompt ends need the prompts alone."""
        groups: dict[tuple[str, str, bool], list[Self]] = {}
        for request in requests:
            group = (request.role, request.text, request.position == "prompt_end")
            groups.setdefault(group, []).append(request)
        arrays: dict[Self, Arrays] = {}
        for (role, text, prompts), members in groups.items():
            texts = context.task.encode(context.split, role, [text])[text]
            ids = prompts_of(texts) if prompts else ids_of(texts)
            spans = [request.spans(texts, ids, context) for request in members]
            layers = [request.block_numbers(context.model) for request in members]
            values = read_states(context.model, ids, spans, layers, context.quiet)
            arrays |= {request: {"values": states} for request, states in zip(members, values)}
        return arrays

    def block_numbers(self, model: Any) -> list[int]:
        """Return the numbers of the requested blocks, counted from 0.

        Raises:
            ConfigError: A block does not exist.
        """
        blocks = range(len(causal.decoder_blocks(model)))
        for layer in self.layers:
            if not -len(blocks) <= layer < len(blocks):
                raise ConfigError(
                    f"the model has {len(blocks)} blocks: choose layers among 0..{len(blocks) - 1}"
                )
        return [blocks[layer] for layer in self.layers] or list(blocks)

    def spans(self, texts: Texts, ids: Sequence[np.ndarray], context: ObservationContext) -> np.ndarray:
        """Return int64[n, 2]: the first token of each text that is read, and the one behind the last."""
        lengths = np.array([len(tokens) for tokens in ids])
        if self.position == "prompt_end":
            return np.stack([lengths - 1, lengths], 1)
        if self.position == "answer":
            return np.stack([texts.starts, lengths], 1)
        return np.asarray(context.task.token_spans(context.split, self.role, self.text, self.span))


def prompts_of(texts: Texts) -> list[np.ndarray]:
    """Return the token ids of each row's prompt."""
    return [texts.prompt(i) for i in np.unique(texts.rows, return_index=True)[1]]


def ids_of(texts: Texts) -> list[np.ndarray]:
    """Return the token ids of each text, prompt and answer."""
    return [texts.ids[start:stop] for start, stop in zip(texts.offsets, texts.offsets[1:])]


@torch.no_grad()
def read_states(
    model: Any,
    texts: Sequence[np.ndarray],
    spans: Sequence[np.ndarray],
    layers: Sequence[Sequence[int]],
    quiet: bool = False,
) -> list[np.ndarray]:
    """Read the states of several requests in one pass.

    Args:
        texts: The token ids of n texts.
        spans: For each request int64[n, 2], the tokens of each text over which it takes the mean.
        layers: For each request the blocks that it reads.

    Returns:
        For each request float32[n, L, D].
    """
    device = next(model.parameters()).device
    depths = sorted({layer for chosen in layers for layer in chosen})
    columns = [[depths.index(layer) for layer in chosen] for chosen in layers]
    values: list[list[np.ndarray]] = [[np.empty(0)] * len(texts) for _ in spans]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with Progress("states", len(texts), quiet=quiet) as progress:
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            # Right-padded: what lies behind a token never reaches it.
            ids = pad_sequence([torch.from_numpy(texts[row]) for row in rows], batch_first=True).to(device)
            by_layer = causal.hidden_after(model, ids, depths)
            states = torch.stack([by_layer[layer] for layer in depths], 2)
            for line, row in enumerate(rows):
                for request, (first, stop) in enumerate(span[row] for span in spans):
                    chosen = states[line, first:stop][:, columns[request]].float().mean(0)
                    values[request][row] = chosen.cpu().numpy()
            progress.advance(len(rows), ids.numel())
    return [np.stack(of_request) for of_request in values]
