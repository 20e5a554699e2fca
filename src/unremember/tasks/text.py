"""Texts as token ids: prompt and answer with an exact boundary, tokenised once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from unremember.data.split import Role, Row
from unremember.errors import DataError

CHAT = "chat"


@dataclasses.dataclass(frozen=True)
class Template:
    """How a row becomes a prompt. ``prompt`` is a format string over ``{question}``, or ``"chat"``.

    ``"chat"`` renders the tokenizer's own chat template once a row. A row's own ``prompt`` is taken as it
    stands.
    """

    prompt: str = "Question: {question}\nAnswer:\n"

    @property
    def opens(self) -> bool:
        """Whether the tokenizer adds its own opening token: a rendered chat has one already."""
        return self.prompt != CHAT

    def render(self, row: Row, tokenizer: Any) -> str:
        """Return the prompt of a row. Raises DataError where the template cannot be filled."""
        if row.get("prompt") is not None:
            return str(row["prompt"])
        if row.get("question") is None:
            return ""
        if self.prompt == CHAT:
            turn = [{"role": "user", "content": str(row["question"])}]
            return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        try:
            return self.prompt.format(question=row["question"])
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(
                f"the template {self.prompt!r} cannot be filled: it may hold {{question}} and no other braces"
            ) from error


@dataclasses.dataclass(frozen=True)
class Texts:
    """n texts as one flat array of ids.

    ``rows`` int64[n]: the row of the role; ``ids`` int64[N]; ``offsets`` int64[n + 1]; ``starts`` int64[n]:
    how many of a text's ids are prompt. Positions ``starts[i]:`` of a text are the answer, each predicted
    from the one before.
    """

    rows: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    answers: Sequence[str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """int64[n]: the tokens of each text, prompt included."""
        return np.diff(self.offsets)

    @property
    def counts(self) -> np.ndarray:
        """int64[n]: the answer tokens of each text."""
        return self.lengths - self.starts

    def prompt(self, i: int) -> np.ndarray:
        """Return the ids of the prompt of text ``i``."""
        return self.ids[self.offsets[i] : self.offsets[i] + self.starts[i]]

    def answer(self, i: int) -> np.ndarray:
        """Return the ids of the answer of text ``i``."""
        return self.ids[self.offsets[i] + self.starts[i] : self.offsets[i + 1]]


def encode_texts(
    role: Role, column: str, tokenizer: Any, template: Template, context: int | None = None
) -> Texts:
    """Tokenise prompt + ``column`` of every row; the end-of-sequence token closes each answer.

    A list column (``perturbed_answers``) gives several texts a row. A document (``text``, no question) is an
    answer to the empty prompt: its first token, which nothing predicts, counts as prompt.

    Raises DataError where the prompt's ids are not a prefix of prompt + answer, and where a text is longer
    than the model's ``context`` (with the number of such texts): nothing is cut silently.
    """
    lists = [v if isinstance(v, list | tuple | np.ndarray) else (v,) for v in role.column(column)]
    rows = np.repeat(np.arange(len(lists), dtype=np.int64), [len(texts) for texts in lists])
    answers = [str(text) for texts in lists for text in texts]
    prompts = [template.render(row, tokenizer) for row in role.rows]
    prompt_ids = prompt_tokens(prompts, tokenizer, template.opens)
    joined = tokenizer([prompts[r] + a for r, a in zip(rows, answers)], add_special_tokens=template.opens)[
        "input_ids"
    ]
    end = tokenizer.eos_token_id
    flat: list[int] = []
    offsets, starts = [0], []
    for row, text, ids in zip(rows, answers, joined):
        head = prompt_ids[row]
        ids = ids if ids and ids[-1] == end else [*ids, end]
        if ids[: len(head)] != head:
            raise DataError(
                f"role {role.name!r} row {row}: the prompt's tokens are not a prefix of prompt + answer "
                f"(the answer {text[:30]!r} merges into the prompt's last token): "
                "end the prompt with a line break, not a space"
            )
        flat.extend(ids)
        offsets.append(len(flat))
        starts.append(max(1, len(head)))
    encoded = Texts(rows, np.array(flat, dtype=np.int64), np.array(offsets), np.array(starts), answers)
    check_lengths(encoded, role, column, context)
    return encoded


def prompt_tokens(prompts: Sequence[str], tokenizer: Any, opens: bool) -> list[list[int]]:
    """Return the ids of each prompt, with the tokenizer's opening token if it ``opens``, unclosed."""
    end = tokenizer.eos_token_id
    encoded = tokenizer(list(prompts), add_special_tokens=opens)["input_ids"]
    letter = tokenizer("a", add_special_tokens=True)["input_ids"]
    adds_end = opens and len(letter) > 1 and letter[-1] == end
    return [ids[:-1] if adds_end else ids for ids in encoded]


def check_lengths(texts: Texts, role: Role, column: str, context: int | None) -> None:
    """Raise DataError, with their number, where texts are longer than the model's context."""
    if context is None:
        return
    long = int((texts.lengths > context).sum())
    if long:
        raise DataError(
            f"{long} of {len(texts)} texts ({column!r} of role {role.name!r}) are longer than the "
            f"model's context of {context} tokens (longest {int(texts.lengths.max())}): "
            "shorten or split them, nothing is cut silently"
        )
