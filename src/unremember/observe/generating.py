"""Greedy generation, drafted: what the scoring pass has already shown to be the greedy choice is not decoded again.

Scoring the true answer tells, at every position, the model's greedy token given the true answer so far. Up to the
first difference that IS the greedy generation; decoding goes on from there. A remembered answer costs nothing more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from unremember.data.text import Texts
from unremember.engine.progress import Progress
from unremember.models import causal
from unremember.observe.scoring import Scored

ROWS = 64
"""Prompts that are decoded together."""


@dataclasses.dataclass
class Line:
    """One prompt being decoded: its ids so far, how many of them are prompt, and which row it answers."""

    row: int
    ids: list[int]
    start: int


def generate(model: Any, texts: Texts, drafted: Scored, end: int, limit: int, quiet: bool = False) -> list[list[int]]:
    """Greedy continuations (at most ``limit`` tokens, end token excluded) of the prompts of ``texts``."""
    done: list[list[int]] = [[] for _ in range(len(texts))]
    open_lines = []
    for i in range(len(texts)):
        line, finished = drafted_line(texts, drafted, i, end, limit)
        if finished:
            done[i] = line.ids[line.start :]
        else:
            open_lines.append(line)
    open_lines.sort(key=lambda line: len(line.ids))
    with Progress("generating", len(texts), start=len(texts) - len(open_lines), quiet=quiet) as progress:
        for at in range(0, len(open_lines), ROWS):
            group = open_lines[at : at + ROWS]
            walk(model, group, end, limit)
            for line in group:
                done[line.row] = line.ids[line.start :]
            progress.advance(len(group), sum(len(line.ids) for line in group))
    return [[token for token in ids if token != end] for ids in done]


def drafted_line(texts: Texts, drafted: Scored, i: int, end: int, limit: int) -> tuple[Line, bool]:
    """The line of text i with every token that the scoring pass already decided, and whether it is finished."""
    offsets = drafted.scores.offsets
    greedy = drafted.greedy[offsets[i] : offsets[i + 1]]
    matches = drafted.scores.matches[offsets[i] : offsets[i + 1]]
    known = int(np.argmin(matches)) + 1 if not matches.all() else len(matches)
    prompt = texts.prompt(i)
    ids = greedy[: min(known, limit)].tolist()
    return Line(i, [*prompt.tolist(), *ids], len(prompt)), len(ids) >= limit or ids[-1] == end


@torch.no_grad()
def walk(model: Any, lines: Sequence[Line], end: int, limit: int) -> None:
    """Decode ``lines`` in place, token by token, left-padded; finished rows leave the batch."""
    device = next(model.parameters()).device
    width = max(len(line.ids) for line in lines)
    ids = torch.zeros(len(lines), width, dtype=torch.int64)
    seen = torch.zeros(len(lines), width + limit, dtype=torch.int64)
    for i, line in enumerate(lines):
        ids[i, width - len(line.ids) :] = torch.tensor(line.ids)
        seen[i, width - len(line.ids) :] = 1
    ids, seen = ids.to(device), seen.to(device)
    positions = (seen[:, :width].cumsum(1) - 1).clamp(min=0)
    cache, active, length = DynamicCache(config=model.config), list(lines), width
    while True:
        states = causal.body(model)(input_ids=ids, attention_mask=seen[:, :length], position_ids=positions,
                                    past_key_values=cache, use_cache=True).last_hidden_state  # fmt: skip
        token = causal.head(model, states[:, -1]).argmax(-1)
        stay = []
        for i, (line, choice) in enumerate(zip(active, token.tolist())):
            line.ids.append(choice)
            if choice != end and len(line.ids) - line.start < limit:
                stay.append(i)
        if not stay:
            return
        if len(stay) < len(active):
            keep = torch.tensor(stay, device=device)
            cache.batch_select_indices(keep)
            seen, token, positions = seen[keep], token[keep], positions[keep]
            active = [active[i] for i in stay]
        ids, positions, length = token[:, None], positions[:, -1:] + 1, length + 1
