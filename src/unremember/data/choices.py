"""Multiple choice: four prompts for each question with four options, one for every cyclic order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unremember.data.split import Row
from unremember.errors import DataError

LETTERS = (" A", " B", " C", " D")
"""The continuations of a prompt. They are scored as texts: a tokenizer may need several tokens for one."""
OPTION_COUNT = len(LETTERS)


def choice_prompt(question: str, options: Sequence[str], gold: int, **columns: Any) -> Row:
    """Return one prompt in the format of lm-eval: the question, a line for each option, "Answer:".

    Args:
        question: The question.
        options: The four options, in the order of the letters.
        gold: The index of the right option.
        columns: Further columns of the row.

    Returns:
        A row with ``prompt``, the four ``letters``, ``gold``, and the right letter as ``answer``.
    """
    lines = [
        question.strip(),
        *(f"{letter.strip()}. {option}" for letter, option in zip(LETTERS, options)),
        "Answer:",
    ]
    return {
        "prompt": "\n".join(lines),
        "answer": LETTERS[gold],
        "letters": list(LETTERS),
        "gold": gold,
        **columns,
    }


def cyclic_prompts(question: str, options: Sequence[str], gold: int, **columns: Any) -> list[Row]:
    """Return the four prompts of a question, with its options shifted up by ``turn`` = 0 … 3 places.

    Every option stands at every letter once, so a model that merely prefers a letter is right in exactly one
    of four. The arguments are those of ``choice_prompt``.
    """
    return [
        choice_prompt(
            question,
            [*options[turn:], *options[:turn]],
            (gold - turn) % OPTION_COUNT,
            turn=turn,
            **columns,
        )
        for turn in range(OPTION_COUNT)
    ]


def choice_prompts(rows: Sequence[Row], name: str, lead: str = "") -> list[Row]:
    """Return the prompts of published multiple-choice questions, four for each.

    Args:
        rows: Each with ``question``, ``choices`` (four texts) and ``answer`` (an index from 0 to 3).
        name: What the questions are about. With its number it names a question in reports (``entity``: "bio
            17"), which so show no text.
        lead: The text before every question.

    Raises:
        DataError: A row has another form.
    """
    for i, row in enumerate(rows):
        if not _is_choice_question(row):
            raise DataError(f"{name}: row {i} is not a question with four choices and an answer from 0 to 3")
    return [
        prompt
        for i, row in enumerate(rows)
        for prompt in cyclic_prompts(
            lead + row["question"], row["choices"], int(row["answer"]), entity=f"{name} {i}"
        )
    ]


def _is_choice_question(row: Row) -> bool:
    options = row.get("choices")
    has_options = isinstance(options, list | tuple) and len(options) == OPTION_COUNT
    has_gold = row.get("answer") in range(OPTION_COUNT)
    return has_options and has_gold and isinstance(row.get("question"), str)
