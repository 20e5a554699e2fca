"""Greedy generation, drafted: tokens that a forward over given tokens decides need no decoding.

Scoring the true answer gives, at every position, the model's greedy token given the true answer so far. Up to
the first difference that IS the greedy generation, so a remembered answer costs nothing more. The generation
of the model that was observed before drafts the remainder: the first forward verifies it, and decoding
continues behind what agrees. An architecture that carries more than keys and values from token to token is
decoded by the library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from unremember.models import causal
from unremember.models.cache import decoding_cache
from unremember.models.head import body
from unremember.models.probing import agrees, probe_ids
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
        stop: How many ids there may be: the limit, or the model's context.
        draft: Further tokens to verify.
    """

    row: int
    ids: list[int]
    start: int
    stop: int
    draft: list[int]

    def finished(self, ends: Collection[int]) -> bool:
        """Return whether nothing more is to be decoded."""
        return len(self.ids) >= self.stop or (len(self.ids) > self.start and self.ids[-1] in ends)


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

    A text ends with the end token, with any other that the model's generation settings name, and where the
    model takes no further token. Neither ``records`` nor ``earlier`` changes the result, which is that of
    undrafted greedy decoding. Where two logits are equal to rounding, either token may be taken.

    Args:
        texts: The prompts with their true answers.
        records: The records of the true answers under this model.
        end: The id of the end-of-sequence token.
        earlier: The continuations that another model gave.
    """
    ends = {end, *causal.end_tokens(model)}
    # 1. A rejected draft would take up room in a window of local attention: draft only what fits.
    window = causal.window(model)
    if window and int(texts.starts.max()) + limit > window:
        earlier = ()

    # 2. Take every token that the scoring pass decided. Many lines are finished by it. The library begins
    #    with the prompts: a few architectures count positions in another way where it decodes.
    own = caches_states(model)
    context = causal.context_length(model)
    lines = []
    for i, start in enumerate(texts.starts.tolist()):
        stop = start + limit if context is None else max(start, min(start + limit, context))
        if own:
            lines.append(drafted_line(texts, records, i, ends, stop, earlier[i] if earlier else []))
        else:
            lines.append(Line(i, texts.prompt(i).tolist(), start, stop, []))
    open_lines = [line for line in lines if not line.finished(ends)]

    # 3. Decode the others, lines of like length together. Of several processes each decodes some groups.
    open_lines.sort(key=lambda line: len(line.ids) + len(line.draft))
    if own:
        groups = [open_lines[i : i + _PROMPTS] for i in range(0, len(open_lines), _PROMPTS)]
    else:
        groups = equally_long(open_lines)
    decode: Callable[..., Sequence[Line]] = decode_lines if own else decode_by_library
    with Progress("generating", len(texts), start=len(texts) - len(open_lines), quiet=quiet) as progress:
        for group in map_over_processes(groups, partial(decode, model, ends=ends)):
            for line in group:
                lines[line.row] = line
            progress.advance(len(group), sum(len(line.ids) for line in group))
    continuations = [line.ids[line.start :] for line in lines]
    return [ids[:-1] if ids and ids[-1] in ends else ids for ids in continuations]


def drafted_line(
    texts: Texts, records: TokenRecords, i: int, ends: Collection[int], stop: int, earlier: list[int]
) -> Line:
    """Return the line of text i with every token that the scoring pass decided.

    ``earlier`` drafts the remainder only if it begins with the decided tokens: a model that has moved on need
    not verify what it will not say.
    """
    span = slice(int(records.offsets[i]), int(records.offsets[i + 1]))
    greedy, matches = np.asarray(records.greedy)[span], records.matches[span]
    decided = int(np.argmin(matches)) + 1 if not matches.all() else len(matches)
    prompt = texts.prompt(i).tolist()
    limit = stop - len(prompt)
    ids = until_end(greedy[: min(decided, limit)].tolist(), ends)
    remainder = earlier[len(ids) : limit - 1] if earlier[: len(ids)] == ids else []
    draft = [token for token in until_end(remainder, ends) if token not in ends]
    return Line(i, [*prompt, *ids], len(prompt), stop, draft)


def until_end(ids: list[int], ends: Collection[int]) -> list[int]:
    """Return ids up to the first that ends a text, which is the last."""
    return next((ids[: k + 1] for k, token in enumerate(ids) if token in ends), ids)


def caches_states(model: Any) -> bool:
    """Return whether decoding may go on from cached states, with padding, rejected drafts and fewer rows."""
    return not model._is_stateful and agrees(model, "cache", compute=partial(_cached_and_alone, model))


def _cached_and_alone(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last states of two rows twice: decoded from a cache, and computed alone.

    The second row is padded, has its draft rejected, and stays when the first has left.
    """
    first, second = probe_ids(model, 9).split([5, 4])
    rows = torch.stack([first[:4], torch.cat([first[:1], second[:2], first[:1]])])
    visible = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]], device=first.device)
    positions = (visible[:, :4].cumsum(1) - 1).clamp(min=0)
    cache = decoding_cache(model, 2)
    cached_states(model, rows, visible[:, :4], positions, cache)
    visible[1, 3] = 0
    tokens, positions = torch.stack([first[4:], second[2:3]]), torch.tensor([[4], [2]], device=first.device)
    both = cached_states(model, tokens, visible[:, :5], positions, cache)
    cache.batch_select_indices(torch.tensor([1], device=first.device))
    last = cached_states(model, second[None, 3:], visible[1:], positions[1:] + 1, cache)
    alone = [causal.last_hidden(model, row[None])[0, -1:] for row in (first, second[:3], second)]
    return torch.cat([*both, last[0]]), torch.cat(alone)


def cached_states(
    model: Any, ids: torch.Tensor, visible: torch.Tensor, positions: torch.Tensor, cache: Any
) -> torch.Tensor:
    """Return the final hidden states [B, T, D] of ids [B, T] behind those in a cache.

    ``visible`` [B, N] covers the cached tokens and the new ones.
    """
    states: torch.Tensor = body(model)(
        input_ids=ids, attention_mask=visible, position_ids=positions, cache=cache, use_cache=True
    ).last_hidden_state
    return states


def equally_long(lines: Sequence[Line]) -> list[list[Line]]:
    """Return groups of lines of one length, which need no padding."""
    by_length: dict[int, list[Line]] = {}
    for line in lines:
        by_length.setdefault(len(line.ids), []).append(line)
    return [same[i : i + _PROMPTS] for same in by_length.values() for i in range(0, len(same), _PROMPTS)]


@torch.no_grad()
def decode_by_library(model: Any, lines: Sequence[Line], ends: Collection[int]) -> Sequence[Line]:
    """Decode lines of one length in place with the model's own ``generate``, and return them."""
    device = next(model.parameters()).device
    ids = torch.tensor([line.ids for line in lines], device=device)
    greedy = GenerationConfig(
        max_length=max(line.stop for line in lines),
        eos_token_id=sorted(ends),
        pad_token_id=min(ends),
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
    )
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
    for line, row in zip(lines, out.tolist()):
        line.ids.extend(until_end(row[len(line.ids) : line.stop], ends))
    return lines


@torch.no_grad()
def decode_lines(model: Any, lines: Sequence[Line], ends: Collection[int]) -> Sequence[Line]:
    """Decode lines in place and return them. The first forward verifies the drafts, others add a token."""
    # 1. Left-pad prompts, decided tokens and drafts into ids [B, T]; the mask leaves `room` for more.
    room = max(line.stop - len(line.ids) for line in lines)
    device = next(model.parameters()).device
    rows = [[*line.ids, *line.draft] for line in lines]
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    visible = torch.tensor(
        [[0] * (width - len(row)) + [1] * (len(row) + room) for row in rows], device=device
    )
    positions = (visible[:, :width].cumsum(1) - 1).clamp(min=0)
    cache, active, length = decoding_cache(model, room), list(lines), width
    while True:
        # 2. One forward over the new tokens; the cache holds the states of the earlier ones.
        states = cached_states(model, ids, visible[:, :length], positions, cache)

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
            if not line.finished(ends):
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
