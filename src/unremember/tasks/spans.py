"""Spans: the tokens of a part of a text, such as the name of the person whom a row is about."""

from __future__ import annotations

from typing import Any

import numpy as np

from unremember.data.split import Role
from unremember.errors import ConfigError, DataError
from unremember.tasks.text import Template, Texts


def find_spans(role: Role, texts: Texts, column: str, tokenizer: Any, template: Template) -> np.ndarray:
    """Find in each text the tokens of the first occurrence of its row's ``column``.

    Args:
        role: The rows.
        texts: Some texts of these rows, tokenised: prompt and answer.

    Returns:
        int64[n, 2]: the first token that overlaps the occurrence, and the one behind the last.

    Raises:
        ConfigError: The tokenizer does not say where its tokens lie in the text.
        DataError: A text does not contain the value.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            "this tokenizer does not say where its tokens lie in a text: use a fast one for spans"
        )
    prompts, values = [template.render(row, tokenizer) for row in role.rows], role.column(column)
    whole = [prompts[row] + answer for row, answer in zip(texts.rows, texts.answers)]
    starts = [text.find(str(values[row])) for text, row in zip(whole, texts.rows)]
    if absent := starts.count(-1):
        raise DataError(
            f"{absent} of {len(whole)} texts of role {role.name!r} do not contain their {column!r}: "
            "choose a column whose value stands in every prompt or answer"
        )
    encoded = tokenizer(whole, add_special_tokens=template.opens, return_offsets_mapping=True)
    spans = []
    for start, row, characters in zip(starts, texts.rows, encoded["offset_mapping"]):
        stop = start + len(str(values[row]))
        overlapping = [i for i, (first, last) in enumerate(characters) if first < stop and last > start]
        spans.append((overlapping[0], overlapping[-1] + 1))
    return np.array(spans, dtype=np.int64)
