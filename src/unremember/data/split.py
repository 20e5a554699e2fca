"""A split: named roles (forget, retain, holdout, …), each a sequence of rows.

A row is a plain mapping. A row of text has ``question`` and ``answer`` (or ``text`` for a document, which is then its own answer) and
may have

* ``paraphrased_question``, ``paraphrased_answer``, ``perturbed_answers`` (wrong answers of the same form),
* ``alternate`` (what the model shall say instead),
* ``entity`` (whom it is about), ``attribute`` (what it says of them), ``relation`` (self, direct, indirect, general)
  and ``neighbour`` (to whom among those to forget it stands in this relation),
* ``sources`` (who states it), ``derived_from`` (the row it was made from).

A row of another modality has whatever its task reads. Roles are open names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from unremember.errors import DataError, nearest

Row = Mapping[str, Any]


def row_digest(row: Row) -> str:
    """SHA-256 (hex) of a row's content; arrays and tensors enter by dtype, shape and bytes."""
    return hashlib.sha256(
        json.dumps(row, sort_keys=True, default=_array_text, ensure_ascii=False).encode()
    ).hexdigest()


def value_of(row: Row, column: str) -> Any:
    """What a row has in a column, else None. The answer of a document is its text."""
    return row.get("text") if column == "answer" and "answer" not in row else row.get(column)


def _array_text(value: Any) -> str:
    array = np.asarray(value)
    if array.dtype == object:
        raise DataError(f"a row holds a {type(value).__name__}: only text, numbers and arrays can be hashed")
    return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"


@dataclasses.dataclass(frozen=True)
class Role:
    """The rows of one role, with the digest that every observation of them is bound to."""

    name: str
    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def row_digests(self) -> list[str]:
        return [row_digest(row) for row in self.rows]

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.row_digests).encode()).hexdigest()

    @cached_property
    def keys(self) -> np.ndarray:
        """One uint64 a row, from its content: sampling orders by it, so deleting a row moves no other."""
        return np.array([int(d[:16], 16) for d in self.row_digests], dtype=np.uint64)

    def column(self, name: str) -> list[Any]:
        """The values of a column in every row. Raises DataError naming the columns there are."""
        values = [value_of(row, name) for row in self.rows]
        missing = [
            i for i, value in enumerate(values) if value is None or (isinstance(value, str) and not value)
        ]
        if missing:
            there = sorted({key for row in self.rows for key in row})
            hint = "" if len(missing) < len(self) else f" ({nearest(name, there)})"
            raise DataError(
                f"role {self.name!r} has no {name!r} in {len(missing)} of {len(self)} rows{hint}; "
                f"columns there are: {', '.join(there)}"
            )
        return values

    def groups(self) -> list[str]:
        """Whom each row is about (``entity``, else the row itself): intervals resample these, not rows."""
        return [str(row.get("entity") or i) for i, row in enumerate(self.rows)]


@dataclasses.dataclass(frozen=True)
class Split:
    """Roles by name. ``utility`` names the roles over which model utility is averaged.

    ``audits`` is what a benchmark measures where nobody names anything else: names, or ``{"name": …, parameters}``.
    """

    roles: Mapping[str, Role]
    utility: tuple[str, ...] = ()
    name: str = "data"
    audits: tuple[Any, ...] = ()

    def __getitem__(self, role: str) -> Role:
        if role not in self.roles:
            raise DataError(f"no role {role!r} in {self.name}: {nearest(role, self.roles)}")
        return self.roles[role]

    def __contains__(self, role: object) -> bool:
        return role in self.roles

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(
            "".join(f"{n}:{r.digest}\n" for n, r in sorted(self.roles.items())).encode()
        ).hexdigest()

    def with_rows(self, **roles: Iterable[Row]) -> Split:
        """A copy with some roles replaced or added."""
        made = {name: Role(name, list(rows)) for name, rows in roles.items()}
        return dataclasses.replace(self, roles={**self.roles, **made})


def make_split(
    roles: Mapping[str, Any] | Split,
    *,
    utility: Sequence[str] = (),
    name: str = "data",
    columns: Mapping[str, str] | None = None,
    audits: Sequence[Any] = (),
) -> Split:
    """Check rows and make a :class:`Split`.

    ``roles`` maps a role's name to rows: lists of mappings or a ``datasets.Dataset``. ``columns`` renames columns
    (``{"prompt": "question"}``). Raises :class:`DataError` for an empty role and for a row that stands both in
    ``forget`` and in ``retain``.
    """
    if isinstance(roles, Split):
        return roles
    made = {}
    for role, rows in roles.items():
        listed = list(rows)
        if not listed:
            raise DataError(
                f"role {role!r} of {name} is empty: give it at least one row, or leave the role out"
            )
        odd = next((row for row in listed if not isinstance(row, Mapping)), None)
        if odd is not None:
            raise DataError(
                f"role {role!r} of {name}: a row is a mapping of column to value, not {type(odd).__name__}"
            )
        made[role] = Role(role, rename(listed, columns, role) if columns else listed)
    split = Split(made, tuple(utility), name, tuple(audits))
    if "forget" in split and "retain" in split:
        check_disjoint(split["forget"], split["retain"])
    return split


def rename(rows: Sequence[Row], columns: Mapping[str, str], role: str) -> list[Row]:
    """Rows with columns renamed as ``{old: new}``; an old name that no row has is an error."""
    there = {key for row in rows for key in row}
    for old in columns:
        if old not in there:
            raise DataError(f"role {role!r} has no column {old!r}: {nearest(old, there)}")
    return [{columns.get(key, key): value for key, value in row.items()} for row in rows]


def identity(row: Row) -> str:
    """What makes two rows the same thing to learn: their text, or their whole content for other modalities."""
    if "question" in row and "answer" in row:
        return f"{row['question']}\x00{row['answer']}".casefold()
    return str(row["text"]).casefold() if "text" in row else row_digest(row)


def learned(split: Split, without: Sequence[str] = (), only: Sequence[str] = ()) -> Split:
    """Add the role ``train``: the rows of forget, retain and the utility roles, each once.

    Args:
        without: Roles that are left out; ``("forget",)`` makes the training data of the retrained oracle.
        only: Roles in place of the usual ones; ``("forget",)`` makes those of a model that knows the forget set better still.

    Raises:
        DataError: A role does not exist, or no rows are left.
    """
    for role in (*without, *only):
        split[role]
    rows = {
        identity(row): row
        for role in only or ("forget", "retain", *split.utility)
        if role in split and role not in without
        for row in split[role].rows
    }
    if not rows:
        raise DataError(
            f"nothing to train on: without {', '.join(without)} there are no rows in {split.name}"
        )
    return dataclasses.replace(split, roles={**split.roles, "train": Role("train", list(rows.values()))})


def check_disjoint(forget: Role, retain: Role) -> None:
    kept = {identity(row) for row in retain.rows}
    both = [i for i, row in enumerate(forget.rows) if identity(row) in kept]
    if both:
        raise DataError(
            f"{len(both)} rows stand both in 'forget' and in 'retain' (first: forget row {both[0]}): "
            "remove them from one of the two; a fact cannot be forgotten and kept"
        )
