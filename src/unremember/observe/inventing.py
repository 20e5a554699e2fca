"""Invented answers: other answers to the forget questions, written by the model itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unremember.data.cleaning import ALIASES
from unremember.data.split import Role, column_value
from unremember.files import write_text
from unremember.progress import Progress
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import CHAT

_INSTRUCTION = (
    "Question: {question}\nAnswer: {answer}\n"
    "Write one more answer to this question. It must fit the question, and every fact in it must differ "
    "from the answer above."
)
_QUESTIONS = 16
"""Questions that are answered together, each several times."""


def invent(
    artefact: Artefact, role: Role, count: int = 5, limit: int = 64, seed: int = 0, quiet: bool = False
) -> list[list[str]]:
    """Sample other answers to each question of a role, at temperature 1.

    The prompt asks for an answer that fits the question and changes its facts (AltPO, arXiv 2409.13474; own
    wording).

    Args:
        artefact: The language model that invents, with its task.
        role: Rows with ``question`` and ``answer``.
        count: Samples a question.
        limit: Most tokens of an answer.

    Returns:
        For each row its distinct answers, at most ``count``: without empty ones and without the row's own
        answers.
    """
    model: Any = artefact.model
    task: Any = artefact.task
    prompts = [alternate_prompt(task, str(row["question"]), str(row["answer"])) for row in role.rows]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    invented: list[list[str]] = [[] for _ in prompts]
    torch.manual_seed(seed)
    model.eval()
    with Progress("inventing", len(prompts), quiet=quiet) as progress:
        for start in range(0, len(order), _QUESTIONS):
            rows = order[start : start + _QUESTIONS]
            for row, texts in zip(rows, task.sample(model, [prompts[i] for i in rows], count, limit)):
                right = {answer.strip() for answer in column_value(role.rows[row], ALIASES)}
                invented[row] = [text for text in dict.fromkeys(texts) if text and text not in right]
            progress.advance(len(rows), 0)
    return invented


def alternate_prompt(task: LanguageTask, question: str, answer: str) -> str:
    """Return the prompt that asks for another answer; a chat turn where the task's template is ``chat``."""
    text = _INSTRUCTION.format(question=question, answer=answer)
    return task.prompt({"question": text}) if task.template.prompt == CHAT else f"{text}\nAnswer:\n"


def write_invented(file: Path, role: Role, invented: Sequence[Sequence[str]]) -> None:
    """Write a line ``{"row": digest, "alternates": [text, …]}`` for each of the role's rows."""
    lines = [
        json.dumps({"row": digest, "alternates": texts}, ensure_ascii=False)
        for digest, texts in zip(role.row_digests, invented)
    ]
    write_text(file, "".join(f"{line}\n" for line in lines))
