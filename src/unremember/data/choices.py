"""Multiple choice: a question with four options becomes four prompts, one for each cyclic order of the options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unremember.data.split import Row
from unremember.errors import DataError

LETTERS = (" A", " B", " C", " D")
"""What may follow the prompt: texts are scored, so a tokenizer may need more than one token for each."""
OPTIONS = len(LETTERS)


def asked(question: str, options: Sequence[str], gold: int, **more: Any) -> Row:
    """The row of one prompt, as lm-eval writes it: the question, a line an option, "Answer:".

    ``letters`` are the four texts that may follow, ``gold`` is the index of the right one, ``answer`` its text.
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
        **more,
    }


def turned(question: str, options: Sequence[str], gold: int, **more: Any) -> list[Row]:
    """The four rows of a question, whose options stand ``turn`` = 0 … 3 places further up; ``turn`` 0 is the order as given.

    Each option stands at each letter once, so a model that only prefers a letter is right in exactly one of four.
    """
    return [
        asked(question, [*options[turn:], *options[:turn]], (gold - turn) % OPTIONS, turn=turn, **more)
        for turn in range(OPTIONS)
    ]


def questions(rows: Sequence[Row], name: str, lead: str = "") -> list[Row]:
    """The prompts of published rows ``question``, ``choices`` (four) and ``answer`` (0 … 3), each after ``lead``.

    A question is known by its place alone (``entity``: "bio 17"), which is what reports show. Raises DataError naming the
    place of a row that is not of this form.
    """
    for i, row in enumerate(rows):
        options = row.get("choices")
        four = isinstance(options, list | tuple) and len(options) == OPTIONS
        if not (four and isinstance(row.get("question"), str) and row.get("answer") in range(OPTIONS)):
            raise DataError(f"{name}: row {i} is no question with four choices and an answer from 0 to 3")
    return [
        made
        for i, row in enumerate(rows)
        for made in turned(lead + row["question"], row["choices"], int(row["answer"]), entity=f"{name} {i}")
    ]
