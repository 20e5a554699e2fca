"""Alternates: what a row shall say in place of its answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from unremember.data.split import Role, Row, Split
from unremember.errors import DataError


def alternates(split: Split, role: str, texts: Sequence[str], keep: bool = True) -> Split:
    """The split whose rows of ``role`` have one of ``texts`` for ``alternate``, drawn by the row itself.

    With ``keep`` a row's own alternate stays.
    """
    rows = split[role]
    drawn = (texts[int(key) % len(texts)] for key in rows.keys)
    return split.with_rows(
        **{
            role: [
                row if keep and row.get("alternate") else {**row, "alternate": text}
                for row, text in zip(rows.rows, drawn)
            ]
        }
    )


def read_invented(file: Path, role: Role) -> list[Row]:
    """The role's rows, each once for every answer that was invented for it, as its ``alternate``.

    ``file`` is one of ``observe.inventing.write_invented`` (``unremember alternates`` makes it). Raises DataError for rows that it does not
    have or that got no answer, with their number.
    """
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found = {line["row"]: line["alternates"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read {file}: `unremember alternates -m MODEL -d DATA -o {file}` makes it"
        ) from error
    without = sum(not found.get(digest) for digest in role.row_digests)
    if without:
        raise DataError(
            f"{file} has no invented answer for {without} of {len(role)} rows of {role.name!r}: make it from the same data"
        )
    return [
        {**row, "alternate": text}
        for row, digest in zip(role.rows, role.row_digests)
        for text in found[digest]
    ]
