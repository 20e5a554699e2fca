"""Teacher-forced scoring: the answers of a question share its keys and values, and every beginning they have in common.

The answers of one prompt form a tree behind it, laid out in one sequence. Each token sees the prompt and its own
beginning, never another answer (a tree mask), and stands at its own depth. A prompt is so computed once, however many
answers it has; the row that predicts all first tokens gets one softmax, and so does each shared beginning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from unremember import processes
from unremember.models import causal
from unremember.observe.records import Scores
from unremember.progress import Progress
from unremember.tasks.text import Texts

TOKENS = 2048
"""Tokens in one forward, padding included."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """Where an answer comes from (``column``, text index), its ids, and where in the tree each is predicted (int64[L])."""

    column: str
    text: int
    ids: np.ndarray
    read: np.ndarray


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt and the tree of its answers: ``ids`` int64[T] enter the forward, each after the position ``parents``."""

    ids: np.ndarray
    parents: np.ndarray
    answers: Sequence[Answer]

    @property
    def size(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Token records of the texts of one column, and the greedy token at every answer position (int64[N])."""

    scores: Scores
    greedy: np.ndarray


def questions(columns: Mapping[str, Texts], shared: bool = True) -> list[Question]:
    """One question a row, with its answers in every column; one an answer where they may not be ``shared``."""
    by_row: dict[Any, list[tuple[str, int]]] = {}
    for column, texts in columns.items():
        for i, row in enumerate(texts.rows):
            by_row.setdefault(int(row) if shared else (column, i), []).append((column, i))
    return [grow(columns, places) for places in by_row.values()]


def grow(columns: Mapping[str, Texts], places: Sequence[tuple[str, int]]) -> Question:
    """The question whose answers are the texts at ``places``. An answer's last token predicts nothing: it stays out."""
    ids = columns[places[0][0]].prompt(places[0][1]).tolist()
    parents, root = list(range(-1, len(ids) - 1)), len(ids) - 1
    children: dict[tuple[int, int], int] = {}
    answers = []
    for column, text in places:
        found = columns[column].answer(text)
        read = [root]
        for token in found[:-1].tolist():
            branch = (read[-1], token)
            if branch not in children:
                children[branch] = len(ids)
                ids.append(token)
                parents.append(read[-1])
            read.append(children[branch])
        answers.append(Answer(column, text, found, np.array(read)))
    return Question(np.array(ids), np.array(parents), answers)


def batches(asked: Sequence[Question], budget: int = TOKENS) -> list[list[Question]]:
    """Questions of like size together, each batch at most ``budget`` padded tokens."""
    out: list[list[Question]] = []
    for question in sorted(asked, key=lambda q: q.size):
        if out and question.size * (len(out[-1]) + 1) <= budget:
            out[-1].append(question)
        else:
            out.append([question])
    return out


@torch.no_grad()
def score(
    model: Any, columns: Mapping[str, Texts], end: int, quiet: bool = False, moments: bool = False
) -> dict[str, Scored]:
    """Score all texts of all columns of a role; ``end`` is the id of the end-of-sequence token. ``moments`` are kept if asked for.

    Texts longer than a sliding attention window are scored one by one: a tree mask is the same in every layer.
    """
    logprobs = {c: np.zeros(int(t.counts.sum()), dtype=np.float32) for c, t in columns.items()}
    greedy = {c: np.zeros(int(t.counts.sum()), dtype=np.int64) for c, t in columns.items()}
    spread = (
        {c: np.zeros((int(t.counts.sum()), 2), dtype=np.float32) for c, t in columns.items()}
        if moments
        else {}
    )
    offsets = {c: np.concatenate([[0], np.cumsum(t.counts)]) for c, t in columns.items()}
    longest = max(int(t.lengths.max()) for t in columns.values())
    asked = questions(columns, shared=longest <= (causal.window(model) or longest))
    with Progress("scoring", len(asked), quiet=quiet) as progress:
        made = batches(asked)
        for batch, (values, best, moved) in zip(
            made, processes.spread(made, partial(forward, model, moments=moments))
        ):
            at = 0
            for answer in answers_of(batch):
                size, place = len(answer.ids), offsets[answer.column][answer.text]
                logprobs[answer.column][place : place + size] = values[at : at + size]
                greedy[answer.column][place : place + size] = best[at : at + size]
                if moments:
                    spread[answer.column][place : place + size] = moved[at : at + size]
                at += size
            progress.advance(len(batch), sum(q.size for q in batch))
    return {
        c: Scored(records(t, offsets[c], logprobs[c], greedy[c], end, spread.get(c)), greedy[c])
        for c, t in columns.items()
    }


def records(
    texts: Texts,
    offsets: np.ndarray,
    logprobs: np.ndarray,
    greedy: np.ndarray,
    end: int,
    moments: np.ndarray | None,
) -> Scores:
    labels = np.concatenate(
        [texts.ids[o + s : e] for o, s, e in zip(texts.offsets, texts.starts, texts.offsets[1:])]
    )
    ends = texts.ids[texts.offsets[1:] - 1] == end
    return Scores(texts.rows, offsets, logprobs, greedy == labels, ends, texts.answers, moments)


def answers_of(batch: Sequence[Question]) -> list[Answer]:
    """The answers of a batch, in order."""
    return [answer for question in batch for answer in question.answers]


def forward(
    model: Any, batch: Sequence[Question], moments: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log-probabilities float32[M], greedy ids int64[M], moments float32[M, 2]) of the answers of a batch of questions."""
    width = max(q.size for q in batch)
    ids = np.zeros((len(batch), width), dtype=np.int64)
    for line, question in enumerate(batch):
        ids[line, : question.size] = question.ids
    answers = answers_of(batch)
    read = np.concatenate(
        [a.read + line * width for line, question in enumerate(batch) for a in question.answers]
    )
    device = next(model.parameters()).device
    shared = any(len(question.answers) > 1 for question in batch)
    inputs = branches(model, batch, width) if shared else {}
    with causal.attending(model, causal.EARLIER) if shared and causal.packs(model, width) else nullcontext():
        hidden = causal.last_hidden(model, torch.from_numpy(ids).to(device), **inputs)
    rows, of_label = np.unique(read, return_inverse=True)
    flat = hidden.flatten(0, 1)[torch.from_numpy(rows).to(device)]
    labels = torch.from_numpy(np.concatenate([a.ids for a in answers])).to(device)
    reads = torch.from_numpy(of_label).to(device)
    values, best, spread = causal.rows_scores(model, flat, reads, labels, moments)
    return (
        values.cpu().numpy(),
        best[reads].cpu().numpy(),
        (spread[reads] if moments else spread).cpu().numpy(),
    )


def branches(model: Any, batch: Sequence[Question], width: int) -> dict[str, torch.Tensor]:
    """Positions [B, T] and additive mask [B, 1, T, T]: a token sees itself and what it follows, and stands at that depth."""
    sees = np.zeros((len(batch), width, width), dtype=bool)
    sees[:, range(width), range(width)] = True
    for line, question in enumerate(batch):
        for at, parent in enumerate(question.parents.tolist()):
            if parent >= 0:
                sees[line, at] |= sees[line, parent]
    weight = next(model.parameters())
    seen = torch.from_numpy(sees).to(weight.device)
    mask = torch.zeros(seen[:, None].shape, dtype=weight.dtype, device=weight.device)
    return {
        "position_ids": seen.sum(-1) - 1,
        "attention_mask": mask.masked_fill_(~seen[:, None], torch.finfo(weight.dtype).min),
    }
