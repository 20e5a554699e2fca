"""Teacher-forced scoring: every answer of a question shares the question's keys and values.

The answers of one prompt are laid behind it in one sequence. Each sees the prompt and itself, never another answer
(a block mask), and each starts at the position after the prompt. A prompt is so computed once, however many answers
it has; the row that predicts all first tokens gets one log-softmax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unremember.data.text import Texts
from unremember.engine.progress import Progress
from unremember.models import causal
from unremember.observe.records import Scores

TOKENS = 4096
"""Tokens in one forward, padding included."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """Where an answer comes from (``column``, text index) and its ids, end token included."""

    column: str
    text: int
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt and its answers: ``size`` counts the tokens that enter the forward."""

    prompt: np.ndarray
    answers: Sequence[Answer]

    @property
    def size(self) -> int:
        return len(self.prompt) + sum(len(a.ids) - 1 for a in self.answers)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Token records of the texts of one column, and the greedy token at every answer position (int64[N])."""

    scores: Scores
    greedy: np.ndarray


def questions(columns: Mapping[str, Texts]) -> list[Question]:
    """One question a row, with its answers in every column."""
    by_row: dict[int, list[tuple[str, int]]] = {}
    for column, texts in columns.items():
        for i, row in enumerate(texts.rows):
            by_row.setdefault(int(row), []).append((column, i))
    made = []
    for places in by_row.values():
        column, i = places[0]
        answers = [Answer(c, t, columns[c].ids[columns[c].offsets[t] + columns[c].starts[t] : columns[c].offsets[t + 1]])
                   for c, t in places]  # fmt: skip
        made.append(Question(columns[column].prompt(i), answers))
    return made


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
def score(model: Any, columns: Mapping[str, Texts], end: int, quiet: bool = False) -> dict[str, Scored]:
    """Score all texts of all columns of a role; ``end`` is the id of the end-of-sequence token."""
    logprobs = {c: np.zeros(int(t.counts.sum()), dtype=np.float32) for c, t in columns.items()}
    greedy = {c: np.zeros(int(t.counts.sum()), dtype=np.int64) for c, t in columns.items()}
    offsets = {c: np.concatenate([[0], np.cumsum(t.counts)]) for c, t in columns.items()}
    asked = questions(columns)
    with Progress("scoring", len(asked), quiet=quiet) as progress:
        for batch in batches(asked):
            answers, values, best = forward(model, batch)
            at = 0
            for answer in answers:
                size, place = len(answer.ids), offsets[answer.column][answer.text]
                logprobs[answer.column][place : place + size] = values[at : at + size]
                greedy[answer.column][place : place + size] = best[at : at + size]
                at += size
            progress.advance(len(batch), sum(q.size for q in batch))
    return {c: Scored(records(t, offsets[c], logprobs[c], greedy[c], end), greedy[c]) for c, t in columns.items()}


def records(texts: Texts, offsets: np.ndarray, logprobs: np.ndarray, greedy: np.ndarray, end: int) -> Scores:
    labels = np.concatenate([texts.ids[o + s : e] for o, s, e in zip(texts.offsets, texts.starts, texts.offsets[1:])])
    ends = texts.ids[texts.offsets[1:] - 1] == end
    return Scores(texts.rows, offsets, logprobs, greedy == labels, ends, texts.answers)


def forward(model: Any, batch: Sequence[Question]) -> tuple[list[Answer], np.ndarray, np.ndarray]:
    """(answers in order, log-probabilities float32[M], greedy ids int64[M]) of a batch of questions."""
    width = max(q.size for q in batch)
    ids = np.zeros((len(batch), width), dtype=np.int64)
    positions = np.zeros((len(batch), width), dtype=np.int64)
    block = np.zeros((len(batch), width), dtype=np.int64)
    answers: list[Answer] = []
    read: list[np.ndarray] = []
    for line, question in enumerate(batch):
        start = len(question.prompt)
        ids[line, :start], positions[line, :start] = question.prompt, np.arange(start)
        at = start
        for number, answer in enumerate(question.answers, 1):
            size = len(answer.ids) - 1
            ids[line, at : at + size] = answer.ids[:-1]
            positions[line, at : at + size] = np.arange(start, start + size)
            block[line, at : at + size] = number
            read.append(np.concatenate([[start - 1], np.arange(at, at + size)]) + line * width)
            answers.append(answer)
            at += size
        block[line, at:] = -1
    device = next(model.parameters()).device
    shared = max(len(q.answers) for q in batch) > 1
    extra = {"position_ids": torch.from_numpy(positions).to(device), "attention_mask": mask(model, block)} if shared else {}
    hidden = causal.last_hidden(model, torch.from_numpy(ids).to(device), **extra)
    rows, of_label = np.unique(np.concatenate(read), return_inverse=True)
    flat = hidden.reshape(-1, hidden.shape[-1])[torch.from_numpy(rows).to(device)]
    labels = torch.from_numpy(np.concatenate([a.ids for a in answers])).to(device)
    reads = torch.from_numpy(of_label).to(device)
    values, best = causal.rows_scores(model, flat, reads, labels)
    return answers, values.cpu().numpy(), best[reads].cpu().numpy()


def mask(model: Any, block: np.ndarray) -> torch.Tensor:
    """Additive mask [B, 1, T, T]: a token sees earlier tokens of the prompt (block 0) and of its own answer."""
    own = torch.from_numpy(block).to(next(model.parameters()).device)
    width = own.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool, device=own.device).tril()
    sees = (own[:, :, None] == own[:, None, :]) | (own[:, None, :] == 0)
    dtype = next(model.parameters()).dtype
    out = torch.zeros(len(own), 1, width, width, dtype=dtype, device=own.device)
    return out.masked_fill_(~(sees & earlier)[:, None], torch.finfo(dtype).min)
