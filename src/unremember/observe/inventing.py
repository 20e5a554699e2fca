"""Invented answers: other answers to the forget questions, written by the model itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unremember.data.split import Role
from unremember.files import write_text
from unremember.progress import Progress
from unremember.tasks.text import CHAT, Template

WISH = (
    "Question: {question}\nAnswer: {answer}\n"
    "Write one more answer to this question. It must fit the question, and every fact in it must differ from the answer above."
)
ROWS = 16
"""Questions that are answered together, each ``count`` times."""


def invent(
    model: Any,
    tokenizer: Any,
    role: Role,
    template: Template,
    count: int = 5,
    limit: int = 64,
    seed: int = 0,
    quiet: bool = False,
) -> list[list[str]]:
    """For every row up to ``count`` different answers that are not its own, sampled at temperature 1.

    The model is asked for an answer that fits the question and changes its facts (AltPO, arXiv 2409.13474; own wording), as a
    chat turn where ``template`` is ``chat``. A row may get fewer, or none: what repeats or is empty is left out.
    """
    prompts = [wish(row["question"], row["answer"], tokenizer, template) for row in role.rows]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: list[list[str]] = [[] for _ in prompts]
    torch.manual_seed(seed)
    model.eval()
    with Progress("inventing", len(prompts), quiet=quiet) as progress:
        for at in range(0, len(order), ROWS):
            rows = order[at : at + ROWS]
            for row, said in zip(rows, sampled(model, tokenizer, [prompts[i] for i in rows], count, limit)):
                own = str(role.rows[row]["answer"]).strip()
                found[row] = [text for text in dict.fromkeys(said) if text and text != own]
            progress.advance(len(rows), 0)
    return found


def wish(question: str, answer: str, tokenizer: Any, template: Template) -> str:
    """The prompt that asks for another answer."""
    text = WISH.format(question=question, answer=answer)
    if template.prompt != CHAT:
        return f"{text}\nAnswer:\n"
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
    )


@torch.no_grad()
def sampled(model: Any, tokenizer: Any, prompts: Sequence[str], count: int, limit: int) -> list[list[str]]:
    """``count`` continuations of each prompt, each cut at its first line break."""
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    width, device = max(map(len, ids)), next(model.parameters()).device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    tokens = torch.tensor([[pad] * (width - len(one)) + one for one in ids], device=device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in ids], device=device)
    out = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=count,
        max_new_tokens=limit,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
    )
    said = [
        text.strip().split("\n")[0].strip()
        for text in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    ]
    return [said[i * count : (i + 1) * count] for i in range(len(prompts))]


def write_invented(file: Path, role: Role, found: Sequence[Sequence[str]]) -> None:
    """A line ``{"row": digest, "alternates": [text, …]}`` for each of the role's rows."""
    lines = [
        json.dumps({"row": digest, "alternates": texts}, ensure_ascii=False)
        for digest, texts in zip(role.row_digests, found)
    ]
    write_text(file, "".join(f"{line}\n" for line in lines))
