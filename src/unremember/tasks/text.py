"""Texts as token ids: prompt and answer with an exact boundary, tokenised once."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from unremember.data.split import Role, Row
from unremember.errors import ConfigError, DataError, one_line

CHAT = "chat"
TODAY = "2025-01-01"
"""The day that it is for a chat template which asks: prompts do not change overnight."""
_CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
"""How a chat template asks for the date."""


@dataclasses.dataclass(frozen=True)
class Template:
    """How a row becomes a prompt. A row's own ``prompt`` is taken as it stands.

    Args:
        prompt: Text with columns in braces, such as ``{question}``, and nothing else in braces; or
            ``"chat"``: the tokenizer's own chat template, with the question as the user's turn.
        variables: What the chat template reads beside the turn, such as ``enable_thinking``; ``system`` is a
            turn before it, and ``date`` (ISO) the day that it is.

    Raises:
        ConfigError: Braces hold more than a column's name, or there are variables but no chat template.
    """

    prompt: str = "Question: {question}\nAnswer:\n"
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.variables and self.prompt != CHAT:
            raise ConfigError(f"template: only chat has variables, not {self.prompt!r}")
        try:
            parts = list(string.Formatter().parse(self.prompt))
        except ValueError as error:
            raise ConfigError(
                f"template {self.prompt!r}: {error}; double a brace that stands for itself"
            ) from error
        for _, column, form, conversion in parts:
            if column is not None and (form or conversion or not column.isidentifier()):
                raise ConfigError(
                    f"template {self.prompt!r}: braces hold the name of a column, such as {{question}}, and "
                    "nothing else; double a brace that stands for itself"
                )

    @classmethod
    def of(cls, spec: str | Mapping[str, Any] | None) -> Self:
        """Return the template of a text, ``"chat"``, ``{"name": "chat", variables}`` or None (default)."""
        if spec is None or isinstance(spec, str):
            return cls() if spec is None else cls(spec)
        variables = {
            key: str(value) if isinstance(value, datetime.date) else value for key, value in spec.items()
        }
        if variables.pop("name", None) != CHAT:
            raise ConfigError("template: variables belong to the chat template: give template=chat first")
        return cls(CHAT, variables)

    @property
    def today(self) -> datetime.date:
        """The day that it is for a chat template. Raises ConfigError for a date that is none."""
        date = str(self.variables.get("date", TODAY))
        try:
            return datetime.date.fromisoformat(date)
        except ValueError as error:
            raise ConfigError(f"template.date is a day, such as {TODAY}, not {date!r}") from error

    @property
    def spec(self) -> str | dict[str, Any]:
        """What ``of`` makes this template from, as JSON."""
        return {"name": CHAT, **self.variables} if self.variables else self.prompt

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
            return self.render_chat(str(row["question"]), tokenizer)
        filled = ""
        for text, column, _, _ in string.Formatter().parse(self.prompt):
            if column is not None and column not in row:
                raise DataError(
                    f"the template {self.prompt!r} needs the column {column!r}, which a row lacks"
                )
            filled += text + ("" if column is None else str(row[column]))
        return filled

    def render_chat(self, question: str, tokenizer: Any) -> str:
        """Return a question as the user's turn of a chat, up to where the answer begins.

        Raises:
            ConfigError: The tokenizer has no chat template, a variable is not the template's to take, or it
                cannot be rendered.
        """
        variables = dict(self.variables)
        system, _ = variables.pop("system", None), variables.pop("date", None)
        if taken := variables.keys() & inspect.signature(tokenizer.apply_chat_template).parameters.keys():
            raise ConfigError(f"template.{min(taken)} is not a variable of a chat template: leave it out")
        turns = [{"role": "system", "content": system}] if system else []

        def date(call: re.Match[str]) -> str:
            return json.dumps(self.today.strftime(call[2]))

        try:
            return str(
                tokenizer.apply_chat_template(
                    [*turns, {"role": "user", "content": question}],
                    chat_template=_CLOCK.sub(date, tokenizer.get_chat_template()),
                    tokenize=False,
                    add_generation_prompt=True,
                    **variables,
                )
            )
        except Exception as error:  # whatever the template of others does
            raise ConfigError(
                f"the tokenizer's chat template cannot be rendered: {one_line(error)[:200]}"
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
