"""Alternates: the answers that a model shall give in place of the true ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from unremember.data.split import Role, Row, Split
from unremember.errors import DataError


def with_alternates(split: Split, role: str, texts: Sequence[str], keep: bool = True) -> Split:
    """Return the split with an ``alternate`` in every row of a role.

    Args:
        split: The split to add to.
        role: The role whose rows get an alternate.
        texts: The alternates to draw from; a row's draw depends on its content alone.
        keep: Leave an alternate that a row already has.
    """
    rows = split[role]
    drawn = [texts[int(key) % len(texts)] for key in rows.keys]
    answered = [
        row if keep and row.get("alternate") else {**row, "alternate": text}
        for row, text in zip(rows.rows, drawn)
    ]
    return split.with_rows(**{role: answered})


def read_invented(file: Path, role: Role) -> list[Row]:
    """Read invented answers, and return each row of the role once for every one, as its ``alternate``.

    Args:
        file: What ``unremember alternates`` wrote (``unremember.observe.inventing.write_invented``).
        role: The rows for which the answers were invented.

    Raises:
        DataError: The file cannot be read, or lacks answers for some of the rows.
    """
    try:
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        invented = {record["row"]: record["alternates"] for record in records}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read {file}: make it with `unremember alternates -m MODEL -d DATA -o {file}`"
        ) from error
    unanswered = sum(not invented.get(digest) for digest in role.row_digests)
    if unanswered:
        raise DataError(
            f"{file} has no invented answer for {unanswered} of {len(role)} rows of {role.name!r}: "
            "make it from the same data"
        )
    return [
        {**row, "alternate": text}
        for row, digest in zip(role.rows, role.row_digests)
        for text in invented[digest]
    ]
