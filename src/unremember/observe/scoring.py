"""Teacher-forced scoring: the answers to a prompt share its computation and that of all common beginnings.

The answers to one prompt form a tree behind it, laid out in one sequence. Each token attends to the prompt
and to its own beginning, never to another answer (a tree mask), and has the position of its own depth. A
prompt is computed once, however many answers it has. One softmax predicts the first tokens of all answers,
and one each shared beginning. Where more than attention carries something from token to token, each answer is
scored with its own prompt.
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
from unremember.models.probing import agrees, probe_ids
from unremember.observe.records import TokenRecords
from unremember.progress import Progress
from unremember.tasks.text import Texts

_TOKENS = 2048
"""Tokens in one forward, padding included."""
_PROBE = 64
"""Tokens of the smallest tree that is probed."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer in a tree.

    Args:
        column: The column that it comes from.
        text: The index of the text in that column.
        ids: int64[L], its tokens.
        predicted_at: int64[L], the position in the tree that predicts each token.
    """

    column: str
    text: int
    ids: np.ndarray
    predicted_at: np.ndarray


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt and the tree of its answers.

    Args:
        ids: int64[T], the tokens that enter the forward.
        parents: int64[T], the position that each token follows; -1 for the first.
        answers: Where each answer lies in the tree.
    """

    ids: np.ndarray
    parents: np.ndarray
    answers: Sequence[Answer]

    @property
    def size(self) -> int:
        return len(self.ids)


def build_questions(columns: Mapping[str, Texts], shared: bool = True) -> list[Question]:
    """Return one question for each row, with all its answers; one for each answer unless ``shared``."""
    answers: dict[Any, list[tuple[str, int]]] = {}
    for column, texts in columns.items():
        for i, row in enumerate(texts.rows):
            answers.setdefault(int(row) if shared else (column, i), []).append((column, i))
    return [build_question(columns, texts) for texts in answers.values()]


def build_question(columns: Mapping[str, Texts], answers: Sequence[tuple[str, int]]) -> Question:
    """Return the question of some answers, given as (column, text index).

    The last token of an answer predicts nothing and stays out.
    """
    column, text = answers[0]
    ids = columns[column].prompt(text).tolist()
    parents, root = list(range(-1, len(ids) - 1)), len(ids) - 1
    children: dict[tuple[int, int], int] = {}
    branches = []
    for column, text in answers:
        answer_ids = columns[column].answer(text)
        predicted_at = [root]
        for token in answer_ids[:-1].tolist():
            branch = (predicted_at[-1], token)
            if branch not in children:
                children[branch] = len(ids)
                ids.append(token)
                parents.append(predicted_at[-1])
            predicted_at.append(children[branch])
        branches.append(Answer(column, text, answer_ids, np.array(predicted_at)))
    return Question(np.array(ids), np.array(parents), branches)


def batches(questions: Sequence[Question], budget: int = _TOKENS) -> list[list[Question]]:
    """Return questions of like size together, each batch with at most ``budget`` padded tokens."""
    out: list[list[Question]] = []
    for question in sorted(questions, key=lambda question: question.size):
        if out and question.size * (len(out[-1]) + 1) <= budget:
            out[-1].append(question)
        else:
            out.append([question])
    return out


@torch.no_grad()
def score(
    model: Any, columns: Mapping[str, Texts], end: int, quiet: bool = False, moments: bool = False
) -> dict[str, TokenRecords]:
    """Score all texts of some columns of one role.

    Args:
        columns: The tokenised texts, by column.
        end: The id of the end-of-sequence token.
        moments: Whether to compute the mean and the variance of each token's distribution too.

    Returns:
        The token records by column.
    """
    offsets = {column: np.concatenate([[0], np.cumsum(texts.counts)]) for column, texts in columns.items()}
    sizes = {column: int(bounds[-1]) for column, bounds in offsets.items()}
    logprobs = {column: np.zeros(size, dtype=np.float32) for column, size in sizes.items()}
    greedy = {column: np.zeros(size, dtype=np.int64) for column, size in sizes.items()}
    spread = {column: np.zeros((size, 2), dtype=np.float32) for column, size in sizes.items() if moments}

    # 1. One tree for each prompt, or for each text where the architecture does not allow that.
    questions = build_questions(columns)
    longest = max(int(texts.lengths.max()) for texts in columns.values())
    if branches(questions) and not shares_prompts(model, longest, max(q.size for q in questions)):
        questions = build_questions(columns, shared=False)
    batched = batches(questions)

    # 2. One forward for each batch. Of several processes each computes some batches.
    scored = processes.map_over_processes(batched, partial(score_batch, model, moments=moments))
    with Progress("scoring", len(questions), quiet=quiet) as progress:
        for batch, (batch_logprobs, batch_greedy, batch_moments) in zip(batched, scored):
            # 3. The values of a batch lie answer by answer: put each at its text's place in its column.
            start = 0
            for answer in answers_of(batch):
                stop = start + len(answer.ids)
                first = offsets[answer.column][answer.text]
                place = slice(first, first + len(answer.ids))
                logprobs[answer.column][place] = batch_logprobs[start:stop]
                greedy[answer.column][place] = batch_greedy[start:stop]
                if moments:
                    spread[answer.column][place] = batch_moments[start:stop]
                start = stop
            progress.advance(len(batch), sum(question.size for question in batch))
    return {
        column: token_records(
            texts, offsets[column], logprobs[column], greedy[column], end, spread.get(column)
        )
        for column, texts in columns.items()
    }


def branches(questions: Sequence[Question]) -> bool:
    """Return whether a prompt has several answers."""
    return any(len(question.answers) > 1 for question in questions)


def shares_prompts(model: Any, longest: int, size: int) -> bool:
    """Return whether answers may share their prompt, in trees of up to ``size`` tokens.

    A tree mask is the same in every layer, so no text may be longer than a window of local attention. The
    probe's tree is as large as the trees, so that it reaches beyond windows that no configuration names.

    Args:
        longest: The tokens of the longest text.
    """
    window, context = causal.window(model), causal.context_length(model)
    if model._is_stateful or (window and longest > window):
        return False
    rounded = max(_PROBE, 1 << (size - 1).bit_length())
    size = max(size, min(rounded, context or rounded))
    depth = min(2 * size // 3, window or size, context or size)
    return agrees(model, "tree", depth, size, compute=partial(_together_and_alone, model, depth, size))


def _together_and_alone(model: Any, depth: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the states that predict some answers twice: in one tree of about ``size`` tokens, and alone.

    Prompt and answer are ``depth`` tokens.
    """
    start = depth // 2
    count = max(2, (size - start) // (depth - start))
    ids = probe_ids(model, start + count * (depth - start)).cpu().numpy()
    rows = [np.concatenate([ids[:start], answer]) for answer in np.split(ids[start:], count)]
    texts = Texts(
        np.zeros(count, dtype=np.int64),
        np.concatenate(rows),
        np.arange(count + 1) * depth,
        np.full(count, start),
        [""] * count,
    )
    (tree,), single = (build_questions({"": texts}, shared) for shared in (True, False))
    states = final_states(model, [tree])[0]
    return torch.stack([states[answer.predicted_at] for answer in tree.answers]), final_states(model, single)[
        :, start - 1 :
    ]


def token_records(
    texts: Texts,
    offsets: np.ndarray,
    logprobs: np.ndarray,
    greedy: np.ndarray,
    end: int,
    moments: np.ndarray | None,
) -> TokenRecords:
    """Return the records of texts from the values of their tokens."""
    labels = np.concatenate([texts.answer(i) for i in range(len(texts))])
    ends = texts.ids[texts.offsets[1:] - 1] == end
    return TokenRecords(texts.rows, offsets, logprobs, greedy == labels, ends, texts.answers, moments, greedy)


def answers_of(batch: Sequence[Question]) -> list[Answer]:
    """Return the answers of a batch, in order."""
    return [answer for question in batch for answer in question.answers]


def score_batch(
    model: Any, batch: Sequence[Question], moments: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score the answers of a batch of questions in one forward.

    Returns:
        Log-probabilities float32[M], greedy ids int64[M], and moments float32[M, 2] ([0, 2] where not
        requested).
    """
    # 1. One forward, right-padded.
    hidden = final_states(model, batch)
    width, device = hidden.shape[1], hidden.device

    # 2. Only the positions that predict an answer token reach the output layer, each of them once.
    answers = answers_of(batch)
    positions = [
        answer.predicted_at + line * width
        for line, question in enumerate(batch)
        for answer in question.answers
    ]
    rows, row_of_label = np.unique(np.concatenate(positions), return_inverse=True)
    states = hidden.flatten(0, 1)[torch.from_numpy(rows).to(device)]
    labels = torch.from_numpy(np.concatenate([answer.ids for answer in answers])).to(device)
    reads = torch.from_numpy(row_of_label).to(device)
    logprobs, greedy, spread = causal.rows_scores(model, states, reads, labels, moments)
    return (
        logprobs.cpu().numpy(),
        greedy[reads].cpu().numpy(),
        (spread[reads] if moments else spread).cpu().numpy(),
    )


def final_states(model: Any, batch: Sequence[Question]) -> torch.Tensor:
    """Return the final hidden states [B, T, D] of some questions, right-padded."""
    # 1. Right-pad the trees into ids [B, T]. No position attends to later ones, so padding needs no mask.
    width = max(question.size for question in batch)
    ids = np.zeros((len(batch), width), dtype=np.int64)
    for line, question in enumerate(batch):
        ids[line, : question.size] = question.ids

    # 2. One forward. A tree mask and positions by depth are needed only where a prompt has several answers.
    device = next(model.parameters()).device
    branching = branches(batch)
    inputs = tree_inputs(model, batch, width) if branching else {}
    chunked = branching and causal.packs(model, width)
    with causal.attending(model, causal.EARLIER) if chunked else nullcontext():
        return causal.last_hidden(model, torch.from_numpy(ids).to(device), **inputs)


def tree_inputs(model: Any, batch: Sequence[Question], width: int) -> dict[str, torch.Tensor]:
    """Return positions [B, T] and a mask [B, 1, T, T]: a token attends to itself and its ancestors."""
    attends = np.zeros((len(batch), width, width), dtype=bool)
    attends[:, range(width), range(width)] = True
    for line, question in enumerate(batch):
        for position, parent in enumerate(question.parents.tolist()):
            if parent >= 0:
                attends[line, position] |= attends[line, parent]
    weight = next(model.parameters())
    visible = torch.from_numpy(attends).to(weight.device)
    mask = torch.zeros(visible[:, None].shape, dtype=weight.dtype, device=weight.device)
    return {
        "position_ids": visible.sum(-1) - 1,
        "attention_mask": mask.masked_fill_(~visible[:, None], torch.finfo(weight.dtype).min),
    }
