"""Greedy generation, drafted: tokens that a forward over given tokens decides need no decoding.

Scoring the true answer gives, at every position, the model's greedy token given the true answer so far. Up to
the first difference that IS the greedy generation, so a remembered answer costs nothing more. The generation
of the model that was observed before drafts the remainder: the first forward verifies it, and decoding
continues behind what agrees.
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
from unremember.observe.records import TokenRecords
from unremember.processes import map_over_processes
from unremember.progress import Progress
from unremember.tasks.text import Texts

_PROMPTS = 64
"""Prompts that are decoded together."""


@dataclasses.dataclass
class Line:
    """One prompt that is being decoded.

    Args:
        row: The index of its text.
        ids: The prompt and the tokens so far.
        start: How many of the ids are prompt.
        draft: Further tokens to verify.
    """

    row: int
    ids: list[int]
    start: int
    draft: list[int]


def generate(
    model: Any,
    texts: Texts,
    records: TokenRecords,
    end: int,
    limit: int,
    earlier: Sequence[list[int]] = (),
    quiet: bool = False,
) -> list[list[int]]:
    """Return the greedy continuation of each prompt: at most ``limit`` tokens, without the end token.

    Neither ``records`` nor ``earlier`` changes the result, which is that of undrafted greedy decoding. Where
    two logits are equal to rounding, either token may be taken.

    Args:
        texts: The prompts with their true answers.
        records: The records of the true answers under this model.
        end: The id of the end-of-sequence token.
        earlier: The continuations that another model gave.
    """
    # 1. A rejected draft would take up room in a sliding attention window: draft only what fits.
    window = causal.window(model)
    if window and int(texts.starts.max()) + limit > window:
        earlier = ()

    # 2. Take every token that the scoring pass decided. Many lines are finished by it.
    answers: list[list[int]] = [[] for _ in range(len(texts))]
    open_lines = []
    for i in range(len(texts)):
        line, finished = drafted_line(texts, records, i, end, limit, earlier[i] if earlier else [])
        if finished:
            answers[i] = line.ids[line.start :]
        else:
            open_lines.append(line)

    # 3. Decode the others, lines of like length together. Of several processes each decodes some groups.
    open_lines.sort(key=lambda line: len(line.ids) + len(line.draft))
    groups = [open_lines[i : i + _PROMPTS] for i in range(0, len(open_lines), _PROMPTS)]
    finished_rows = len(texts) - len(open_lines)
    with Progress("generating", len(texts), start=finished_rows, quiet=quiet) as progress:
        for group in map_over_processes(groups, partial(decode_lines, model, end=end, limit=limit)):
            for line in group:
                answers[line.row] = line.ids[line.start :]
            progress.advance(len(group), sum(len(line.ids) for line in group))
    return [ids[:-1] if ids[-1] == end else ids for ids in answers]


def drafted_line(
    texts: Texts, records: TokenRecords, i: int, end: int, limit: int, earlier: list[int]
) -> tuple[Line, bool]:
    """Return the line of text i with every token that the scoring pass decided, and whether it is finished.

    ``earlier`` drafts the remainder only if it begins with the decided tokens: a model that has moved on need
    not verify what it will not say.
    """
    span = slice(int(records.offsets[i]), int(records.offsets[i + 1]))
    greedy, matches = np.asarray(records.greedy)[span], records.matches[span]
    decided = int(np.argmin(matches)) + 1 if not matches.all() else len(matches)
    prompt = texts.prompt(i).tolist()
    ids = greedy[: min(decided, limit)].tolist()
    ids = ids[: ids.index(end) + 1] if end in ids else ids
    remainder = [*earlier, end][len(ids) : limit] if earlier[: len(ids)] == ids else []
    return Line(i, [*prompt, *ids], len(prompt), remainder[:-1]), len(ids) >= limit or ids[-1] == end


@torch.no_grad()
def decode_lines(model: Any, lines: Sequence[Line], end: int, limit: int) -> Sequence[Line]:
    """Decode lines in place and return them. The first forward verifies the drafts, others add a token."""
    # 1. Left-pad prompts, decided tokens and drafts into ids [B, T]; the mask leaves room for `limit` more.
    device = next(model.parameters()).device
    rows = [[*line.ids, *line.draft] for line in lines]
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    visible = torch.tensor(
        [[0] * (width - len(row)) + [1] * (len(row) + limit) for row in rows], device=device
    )
    positions = (visible[:, :width].cumsum(1) - 1).clamp(min=0)
    cache, active, length = decoding_cache(model, limit), list(lines), width
    while True:
        # 2. One forward over the new tokens; the cache holds the states of the earlier ones.
        states = causal.body(model)(
            input_ids=ids,
            attention_mask=visible[:, :length],
            position_ids=positions,
            cache=cache,
            use_cache=True,
        ).last_hidden_state

        # 3. Read the greedy choice after each drafted token and after the last decided one.
        reads = torch.cat([states[i, -1 - len(line.draft) :] for i, line in enumerate(active)])
        choices = causal.greedy(model, reads).tolist()

        # 4. Accept the choices up to the first that the draft got wrong; its later tokens are masked.
        unfinished, start = [], 0
        for i, line in enumerate(active):
            stop = start + len(line.draft) + 1
            rejected = accept(line, choices[start:stop])
            visible[i, length - rejected : length] = 0
            line.draft = []
            start = stop
            if line.ids[-1] != end and len(line.ids) - line.start < limit:
                unfinished.append(i)
        if not unfinished:
            return lines

        # 5. Finished lines leave the batch; the next forward takes one token of each remaining line.
        active = [active[i] for i in unfinished]
        if len(unfinished) < len(ids):
            selected = torch.tensor(unfinished, device=device)
            cache.batch_select_indices(selected)
            visible = visible[selected]
        ids = torch.tensor([[line.ids[-1]] for line in active], device=device)
        positions = torch.tensor([[len(line.ids) - 1] for line in active], device=device)
        length += 1


def accept(line: Line, choices: Sequence[int]) -> int:
    """Add the greedy choices up to the first undrafted one; return the number of wrong drafted tokens."""
    pairs = enumerate(zip(line.draft, choices))
    agreed = next((k for k, (drafted, choice) in pairs if drafted != choice), len(line.draft))
    line.ids.extend(choices[: agreed + 1])
    return len(line.draft) - agreed
