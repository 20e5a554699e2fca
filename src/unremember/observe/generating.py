"""Greedy generation, drafted: what a forward over given tokens shows to be the greedy choice is not decoded.

Scoring the true answer tells, at every position, the model's greedy token given the true answer so far. Up to the
first difference that IS the greedy generation: a remembered answer costs nothing more. What the model before this one
said drafts the rest: the first forward verifies it, and decoding goes on behind the tokens that agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from unremember.models import causal
from unremember.models.cache import decoding_cache
from unremember.observe.scoring import Scored
from unremember.processes import spread
from unremember.progress import Progress
from unremember.tasks.text import Texts

ROWS = 64
"""Prompts that are decoded together."""


@dataclasses.dataclass
class Line:
    """One prompt being decoded: its ids so far, how many of them are prompt, the row it answers, and a draft to verify."""

    row: int
    ids: list[int]
    start: int
    draft: list[int]


def generate(
    model: Any,
    texts: Texts,
    drafted: Scored,
    end: int,
    limit: int,
    earlier: Sequence[list[int]] = (),
    quiet: bool = False,
) -> list[list[int]]:
    """Greedy continuations (at most ``limit`` tokens, end token excluded) of the prompts of ``texts``.

    ``drafted`` are the scores of the true answers under this model, ``earlier`` what another model said. Neither changes
    the result, which is the undrafted greedy decoding (where two logits are equal to rounding, either may be taken).
    """
    sees = causal.window(model)
    if sees and int(texts.starts.max()) + limit > sees:
        earlier = ()  # a rejected draft would take up room in a sliding window
    done: list[list[int]] = [[] for _ in range(len(texts))]
    open_lines = []
    for i in range(len(texts)):
        line, finished = drafted_line(texts, drafted, i, end, limit, earlier[i] if earlier else [])
        if finished:
            done[i] = line.ids[line.start :]
        else:
            open_lines.append(line)
    open_lines.sort(key=lambda line: len(line.ids) + len(line.draft))
    with Progress("generating", len(texts), start=len(texts) - len(open_lines), quiet=quiet) as progress:
        groups = [open_lines[at : at + ROWS] for at in range(0, len(open_lines), ROWS)]
        for group in spread(groups, partial(walk, model, end=end, limit=limit)):
            for line in group:
                done[line.row] = line.ids[line.start :]
            progress.advance(len(group), sum(len(line.ids) for line in group))
    return [ids[:-1] if ids[-1] == end else ids for ids in done]


def drafted_line(
    texts: Texts, drafted: Scored, i: int, end: int, limit: int, earlier: list[int]
) -> tuple[Line, bool]:
    """The line of text i with every token that the scoring pass already decided, and whether it is finished.

    What was said ``earlier`` drafts the rest only if it begins with what is decided: a model that has moved on is not
    asked to verify what it will not say.
    """
    offsets = drafted.scores.offsets
    greedy = drafted.greedy[offsets[i] : offsets[i + 1]]
    matches = drafted.scores.matches[offsets[i] : offsets[i + 1]]
    known = int(np.argmin(matches)) + 1 if not matches.all() else len(matches)
    prompt = texts.prompt(i).tolist()
    ids = greedy[: min(known, limit)].tolist()
    ids = ids[: ids.index(end) + 1] if end in ids else ids
    rest = [*earlier, end][len(ids) : limit] if earlier[: len(ids)] == ids else []
    return Line(i, [*prompt, *ids], len(prompt), rest[:-1]), len(ids) >= limit or ids[-1] == end


@torch.no_grad()
def walk(model: Any, lines: Sequence[Line], end: int, limit: int) -> Sequence[Line]:
    """Decode ``lines`` in place and return them, left-padded: the first forward verifies the drafts, each later one adds a token.

    Finished rows leave the batch; the rejected end of a draft stays in the cache, and nobody sees it.
    """
    device = next(model.parameters()).device
    fed = [[*line.ids, *line.draft] for line in lines]
    width = max(len(row) for row in fed)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in fed], device=device)
    seen = torch.tensor([[0] * (width - len(row)) + [1] * (len(row) + limit) for row in fed], device=device)
    positions = (seen[:, :width].cumsum(1) - 1).clamp(min=0)
    cache, active, length = decoding_cache(model, limit), list(lines), width
    while True:
        states = causal.body(model)(
            input_ids=ids,
            attention_mask=seen[:, :length],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        reads = torch.cat([states[i, -1 - len(line.draft) :] for i, line in enumerate(active)])
        choices = causal.greedy(model, reads).tolist()
        stay, at = [], 0
        for i, line in enumerate(active):
            rejected = accept(line, choices[at : at + len(line.draft) + 1])
            at += len(line.draft) + 1
            seen[i, length - rejected : length] = 0
            line.draft = []
            if line.ids[-1] != end and len(line.ids) - line.start < limit:
                stay.append(i)
        if not stay:
            return lines
        active = [active[i] for i in stay]
        if len(stay) < len(ids):
            keep = torch.tensor(stay, device=device)
            cache.batch_select_indices(keep)
            seen = seen[keep]
        ids = torch.tensor([[line.ids[-1]] for line in active], device=device)
        positions = torch.tensor([[len(line.ids) - 1] for line in active], device=device)
        length += 1


def accept(line: Line, choices: Sequence[int]) -> int:
    """Add the greedy ``choices`` up to the first that the draft did not foresee; returns how many drafted tokens were wrong."""
    agreed = next(
        (k for k, (token, choice) in enumerate(zip(line.draft, choices)) if token != choice), len(line.draft)
    )
    line.ids.extend(choices[: agreed + 1])
    return len(line.draft) - agreed
