"""Rows as people have them, brought to one form: no null cells, texts as text, aliases in their own column.

``make_split`` sends every row through here, whether it came from a file, the hub or Python.
"""

from __future__ import annotations

import datetime
import decimal
import difflib
import re
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unremember.errors import DataError

ALIASES = "answer_aliases"
"""The column of the right answers beside ``answer``."""
TEXT_COLUMNS = ("prompt", "question", "paraphrased_question", "text")
LIST_COLUMNS = ("perturbed_answers", ALIASES)
TEXT_OR_LIST_COLUMNS = ("answer", "alternate", "paraphrased_answer")
SCALARS = datetime.date | datetime.time | datetime.timedelta | decimal.Decimal | uuid.UUID
"""The single values of tables that JSON does not know."""
_PANDAS_NULLS = ("NAType", "NaTType")
_NEAR = 0.75
"""How alike, from 0 to 1, a column's name and a known one are if the first may be a misspelling."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_rows(
    rows: Sequence[Mapping[str, Any]], role: str, columns: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the rows of a role in one form.

    Null cells are dropped. Numbers, truth values and dates in columns of text become text ("1931", "True").
    A list in ``answer`` gives the answer, its first text, and the ``answer_aliases``. Null and blank entries
    of lists are dropped; a warning counts them.

    Args:
        rows: The rows.
        role: The role's name, for messages.
        columns: New name by old name. The rows may lack an old name.

    Raises:
        DataError: A row cannot be used. The message names the role and the row.
    """
    cleaned, dropped = [], Counter[str]()
    for i, row in enumerate(rows):
        place = f"role {role!r} row {i}"
        cells = {key: value for key, value in row.items() if not is_null(value)}
        cells = rename_cells(cells, columns, place)
        for key in (*TEXT_COLUMNS, *LIST_COLUMNS, *TEXT_OR_LIST_COLUMNS):
            if key in cells:
                cells[key], blanks = clean_texts(cells[key], key, place)
                dropped[key] += blanks
        cells = with_aliases({key: value for key, value in cells.items() if value is not None})
        check_cells(cells, place)
        cleaned.append(cells)
    for key, count in dropped.items():
        if count:
            warnings.warn(f"role {role!r}: {count} null or blank texts in {key!r} are left out", stacklevel=2)
    return cleaned


def is_null(value: Any) -> bool:
    """Return whether a cell holds no value: None, NaN, or a null of pandas."""
    is_nan = isinstance(value, float | np.floating) and bool(value != value)
    return value is None or is_nan or type(value).__name__ in _PANDAS_NULLS


def rename_cells(cells: Mapping[str, Any], columns: Mapping[str, str], place: str) -> dict[str, Any]:
    """Return the cells of a row under their new names. Raises DataError where two would share one."""
    renamed: dict[str, Any] = {}
    for key, value in cells.items():
        name = columns.get(key, key)
        if name in renamed:
            raise DataError(
                f"{place} would have two columns {name!r}: drop one, or rename it too with columns.{name}=…"
            )
        renamed[name] = value
    return renamed


def clean_texts(value: Any, column: str, place: str) -> tuple[Any, int]:
    """Return a cell as a text or a list of texts, and how many null or blank texts the list lost.

    Raises:
        DataError: It holds something else than texts, a list where one text belongs, or the reverse.
    """
    is_list = isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1
    if is_list and column not in TEXT_COLUMNS:
        entries = value.tolist() if hasattr(value, "tolist") else value
        texts = [text_of_value(entry, column, place) for entry in entries]
        written = [text for text in texts if text and text.strip()]
        return written, len(texts) - len(written)
    if column in LIST_COLUMNS and not isinstance(value, str):
        raise DataError(f"{place}: {column!r} must be a list of texts, not {repr(value)[:40]}")
    return text_of_value(value, column, place), 0


def text_of_value(value: Any, column: str, place: str) -> str | None:
    """Return a single value as text, None for a null. Raises DataError for any other value."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if is_null(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a gap turns a column of integers into one of floats
    if not isinstance(value, str | int | float | SCALARS):
        raise DataError(f"{place}: {column!r} must be text, not a {type(value).__name__}")
    return str(value)


def with_aliases(cells: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of a row with one answer; further ones become ``answer_aliases``."""
    aliases = cells.get(ALIASES, [])
    aliases = [aliases] if isinstance(aliases, str) else aliases
    answer = cells.get("answer")
    if isinstance(answer, list):
        answer, aliases = (answer or [""])[0], [*answer[1:], *aliases]
        cells = {**cells, "answer": answer}
    aliases = [alias for alias in dict.fromkeys(aliases) if alias != answer]
    without = {key: value for key, value in cells.items() if key != ALIASES}
    return {**without, ALIASES: aliases} if aliases else without


def check_cells(cells: dict[str, Any], place: str) -> None:
    """Raise DataError where a text is blank or cannot be written, or a column of the question is missing."""
    for key, value in cells.items():
        if any(_SURROGATE.search(text) for text in strings_in(value)):
            raise DataError(
                f"{place}: {key!r} holds half of a character (a lone surrogate such as \\ud83d): "
                "export the text again, or take it out"
            )
    unread = {"question"} if "prompt" in cells else set()
    unread |= {"text"} if "answer" in cells else set()
    for key in ("question", "answer", "text"):
        if key in cells.keys() - unread and not cells[key].strip():
            raise DataError(f"{place}: {key!r} is blank: fill it in, or leave the row out")
    if "text" not in cells:
        check_columns(cells, place)


def strings_in(value: Any) -> Iterator[str]:
    """Yield every string of a cell, however deep in lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from strings_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from strings_in(entry)


def check_columns(cells: dict[str, Any], place: str) -> None:
    """Raise DataError where a row that is no document lacks its question or answer under this name.

    A row without question and answer belongs to another modality, unless it has a column of nearly their
    name. A question alone may have an audit of its own, and training refuses it.
    """
    if "question" in cells or "prompt" in cells:
        missing = [] if "answer" in cells else ["answer"]
    else:
        missing = ["question"] if "answer" in cells else ["question", "answer", "text"]
    columns = [key for key, value in cells.items() if isinstance(value, str | list)]
    for name in missing:
        for near in difflib.get_close_matches(name, columns, n=1, cutoff=_NEAR):
            raise DataError(
                f"{place} has no {name!r}: did you mean its column {near!r}? Rename it: columns.{near}={name}"
            )
    if missing == ["question"]:
        raise DataError(
            f"{place} has an answer, but neither question nor prompt; its columns are: {', '.join(cells)}. "
            "Rename the question's (columns.OLD=question), or the answer's to text if it is a document"
        )
