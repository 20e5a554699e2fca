"""The floor: plain torch loops over tokenised, length-sorted texts, as one would write them for this job.

Same model class, optimiser, clipping and real tokens as the product. Logits are made at answer positions
only, a unique sequence is scored by one forward, and finished rows leave a generating batch. Nothing here is
shared with the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

ROWS = 32
"""Rows in one forward."""

Text = tuple[list[int], int]
"""Ids of prompt + answer + end token, and how many of them are prompt."""


def tokenise(tokenizer: Any, rows: Sequence[Any], column: str = "answer") -> list[list[Text]]:
    """The texts of each row: one, or as many as its list column has."""
    texts = []
    for row in rows:
        answers = row[column] if isinstance(row[column], list) else [row[column]]
        prompt = f"Question: {row['question']}\nAnswer:\n"
        start = len(tokenizer(prompt)["input_ids"])
        texts.append(
            [
                ([*tokenizer(prompt + answer)["input_ids"], tokenizer.eos_token_id], start)
                for answer in answers
            ]
        )
    return texts


def padded(texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """Right-padded ids [B, T] and the flat positions of the answer tokens."""
    width = max(len(ids) for ids, _ in texts)
    tokens = torch.zeros(len(texts), width, dtype=torch.int64)
    for line, (ids, _) in enumerate(texts):
        tokens[line, : len(ids)] = torch.tensor(ids)
    positions = torch.cat(
        [torch.arange(start, len(ids)) + line * width for line, (ids, start) in enumerate(texts)]
    )
    return tokens, positions


def answer_losses(model: Any, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """(cross-entropy [M], logits [M, V]) of the answer tokens of one micro-batch."""
    tokens, positions = padded(texts)
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1)[positions - 1])
    return F.cross_entropy(logits, tokens.flatten()[positions], reduction="none"), logits


def train(model: Any, texts: Sequence[Text], rows_a_step: int, lr: float) -> int:
    """Fine-tune on texts, sorted by length, some rows an optimiser step; return the tokens used."""
    texts = sorted(texts, key=lambda text: len(text[0]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    model.train()
    for first in range(0, len(texts), rows_a_step):
        step = texts[first : first + rows_a_step]
        answers = sum(len(ids) - start for ids, start in step)
        optimizer.zero_grad(set_to_none=True)
        for first_row in range(0, len(step), ROWS):
            (answer_losses(model, step[first_row : first_row + ROWS])[0].sum() / answers).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    return sum(len(ids) for ids, _ in texts)


@torch.no_grad()
def score(model: Any, texts: Sequence[Text]) -> tuple[list[Tensor], list[Tensor]]:
    """(log-probabilities, whether each token is the greedy choice) of the answer tokens of every text."""
    unique = {(tuple(ids), start): [] for ids, start in texts}
    for i, (ids, start) in enumerate(texts):
        unique[tuple(ids), start].append(i)
    order = sorted(unique, key=lambda text: len(text[0]))
    logprobs: list[Any] = [None] * len(texts)
    matches: list[Any] = [None] * len(texts)
    for first_row in range(0, len(order), ROWS):
        part = order[first_row : first_row + ROWS]
        losses, logits = answer_losses(model, [(list(ids), start) for ids, start in part])
        labels = torch.cat([torch.tensor(ids[start:]) for ids, start in part])
        sizes = [len(ids) - start for ids, start in part]
        for text, values, right in zip(
            part, (-losses).split(sizes), (logits.argmax(-1) == labels).split(sizes)
        ):
            for i in unique[text]:
                logprobs[i], matches[i] = values, right
    return logprobs, matches


@torch.no_grad()
def generate(model: Any, prompts: Sequence[list[int]], end: int, limit: int) -> list[list[int]]:
    """Return greedy continuations, without the end token. Finished rows leave the batch of padded prompts."""
    continuations: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first_row in range(0, len(order), ROWS):
        rows = order[first_row : first_row + ROWS]
        width = max(len(prompts[i]) for i in rows)
        ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in rows])
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows])
        cache = DynamicCache(config=model.config)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        for _ in range(limit):
            hidden = model.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, cache=cache
            ).last_hidden_state
            token = model.lm_head(hidden[:, -1]).argmax(-1)
            going = token != end
            for i, choice, open_ in zip(rows, token.tolist(), going.tolist()):
                if open_:
                    continuations[i].append(choice)
            if not going.any():
                break
            if not going.all():
                rows = [i for i, open_ in zip(rows, going.tolist()) if open_]
                cache.batch_select_indices(going.nonzero()[:, 0])
                token, mask, positions = token[going], mask[going], positions[going]
            ids, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=mask.dtype)], 1)
    return continuations
