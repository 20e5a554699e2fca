"""A split: named roles (forget, retain, holdout, …), each a sequence of rows.

A row is a plain mapping. A row of text has ``question`` and ``answer``, or ``text`` for a document, which is
its own answer. It may also have

* ``prompt`` (the whole text before the answer, in place of the question in its template),
* ``answer_aliases`` (further right answers; a list in ``answer`` is its first text and these),
* ``paraphrased_question``, ``paraphrased_answer``, ``perturbed_answers`` (wrong answers of the same form),
* ``alternate`` (what the model shall say instead),
* ``entity`` (whom it is about), ``attribute`` (what it says of them), ``relation`` (self, direct, indirect,
  general) and ``neighbour`` (the forgotten entity to which it has this relation),
* ``sources`` (the documents that state it), ``derived_from`` (the row it was made from).

A row of another modality has the columns that its task reads. Roles can have any name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from unremember.data.cleaning import ALIASES, SCALARS, clean_rows
from unremember.errors import DataError, did_you_mean

Row = Mapping[str, Any]


def row_digest(row: Row) -> str:
    """Hash a row's content: SHA-256 (hex). Arrays and tensors enter by dtype, shape and bytes."""
    text = json.dumps(row, sort_keys=True, default=_array_text, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _array_text(value: Any) -> str:
    """Return an array, or a date of a table, as text. Raises DataError for any other object."""
    if isinstance(value, SCALARS):
        return str(value)
    array = np.asarray(value)
    if array.dtype == object:
        raise DataError(f"a row holds a {type(value).__name__}: only text, numbers and arrays can be hashed")
    return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"


def column_value(row: Row, column: str) -> Any:
    """Return what a row has in a column, else None.

    The answer of a document is its text. The aliases of an answer begin with the answer itself.
    """
    if column == ALIASES:
        answer = column_value(row, "answer")
        return None if answer is None else [answer, *row.get(ALIASES, ())]
    value = row.get(column)
    return row.get("text") if column == "answer" and value is None else value


def answer_column(role: Role) -> str:
    """Return the column of a role's right answers: of all aliases where some row has them."""
    return ALIASES if any(row.get(ALIASES) for row in role.rows) else "answer"


def content_keys(row: Row) -> list[str]:
    """Return a key for each right answer of a row: two rows that share a key teach the same.

    Case, surrounding blanks and the Unicode form of a letter make no difference. A row without text is keyed
    by its whole content.
    """
    question = row.get("prompt") if row.get("question") is None else row["question"]
    if question is not None and row.get("answer") is not None:
        return [f"{_plain_text(question)}\x00{_plain_text(answer)}" for answer in column_value(row, ALIASES)]
    return [row_digest(row) if row.get("text") is None else _plain_text(row["text"])]


def content_key(row: Row) -> str:
    """Return the key of what a row teaches with its first answer, which is the one that training learns."""
    return content_keys(row)[0]


def _plain_text(value: Any) -> str:
    return unicodedata.normalize("NFC", str(value)).strip().casefold()


@dataclasses.dataclass(frozen=True)
class Role:
    """The rows of one role, with the digest to which every observation of them is bound."""

    name: str
    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def row_digests(self) -> list[str]:
        """The hash of every row."""
        return [row_digest(row) for row in self.rows]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the rows, in their order."""
        return hashlib.sha256("\n".join(self.row_digests).encode()).hexdigest()

    @cached_property
    def keys(self) -> np.ndarray:
        """uint64[n]: a key of each row's content. Samplings order by it, so deleting a row moves no other."""
        return np.array([int(digest[:16], 16) for digest in self.row_digests], dtype=np.uint64)

    def column(self, name: str) -> list[Any]:
        """Return the value of a column in every row.

        Raises:
            DataError: A row has no value; the message lists the columns that exist.
        """
        values = [column_value(row, name) for row in self.rows]
        missing = sum(value is None or (isinstance(value, str) and not value) for value in values)
        if missing:
            columns = sorted({key for row in self.rows for key in row})
            hint = "" if missing < len(self) else f" ({did_you_mean(name, columns)})"
            raise DataError(
                f"role {self.name!r} has no {name!r} in {missing} of {len(self)} rows{hint}; "
                f"its columns are: {', '.join(columns)}"
            )
        return values

    def groups(self) -> list[str]:
        """Return whom each row is about (``entity``, or its number). Intervals resample groups."""
        return [str(row.get("entity") or i) for i, row in enumerate(self.rows)]


@dataclasses.dataclass(frozen=True)
class Split:
    """Roles by name.

    Args:
        roles: The roles, by name.
        utility: The roles over which model utility is averaged.
        name: The name of the data in messages and reports.
        audits: The audits that a benchmark measures by default: names, or ``{"name": …, parameters}``.
    """

    roles: Mapping[str, Role]
    utility: tuple[str, ...] = ()
    name: str = "data"
    audits: tuple[Any, ...] = ()

    def __getitem__(self, role: str) -> Role:
        if role not in self.roles:
            raise DataError(f"no role {role!r} in {self.name}: {did_you_mean(role, self.roles)}")
        return self.roles[role]

    def __contains__(self, role: object) -> bool:
        return role in self.roles

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the names and rows of all roles."""
        lines = (f"{name}:{role.digest}\n" for name, role in sorted(self.roles.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def with_rows(self, **roles: Iterable[Row]) -> Split:
        """Return a copy in which some roles are replaced or added."""
        changed = {name: Role(name, list(rows)) for name, rows in roles.items()}
        return dataclasses.replace(self, roles={**self.roles, **changed})


def make_split(
    roles: Mapping[str, Any] | Split,
    *,
    utility: Sequence[str] = (),
    name: str = "data",
    columns: Mapping[str, str] | None = None,
    audits: Sequence[Any] = (),
) -> Split:
    """Check rows and build a ``Split`` of them.

    Args:
        roles: Rows by role: a list of mappings or a ``datasets.Dataset`` each. A split is returned as it is.
        utility: The roles over which model utility is averaged.
        name: The name of the data in messages and reports.
        columns: New names of columns: ``{"prompt": "question"}``. A role without the old name stays as it
            is.
        audits: The audits that are measured by default.

    Raises:
        DataError: A role is empty, a row cannot be used, no role has a column that is to be renamed, or a row
            is both in ``forget`` and in ``retain``.
    """
    if isinstance(roles, Split):
        return roles
    listed = {role: _checked_rows(list(rows), role, name) for role, rows in roles.items()}
    _check_renamed(listed, columns or {}, name)
    cleaned = {role: Role(role, clean_rows(rows, role, columns or {})) for role, rows in listed.items()}
    split = Split(cleaned, tuple(utility), name, tuple(audits))
    if "forget" in split and "retain" in split:
        _check_disjoint(split["forget"], split["retain"])
    for role in split.roles.values():
        _warn_of_repeats(role)
    return split


def _checked_rows(rows: list[Any], role: str, name: str) -> list[Row]:
    """Return the rows of a role. Raises DataError where there are none, or one is no mapping."""
    if not rows:
        raise DataError(f"role {role!r} of {name} is empty: give it at least one row, or leave the role out")
    for row in rows:
        if not isinstance(row, Mapping):
            raise DataError(
                f"role {role!r} of {name}: a row is a mapping of column to value, not {type(row).__name__}"
            )
    return rows


def _check_renamed(roles: Mapping[str, Sequence[Row]], columns: Mapping[str, str], name: str) -> None:
    """Raise DataError where no row of any role has a column that is to be renamed."""
    if not columns:
        return
    existing = {key for rows in roles.values() for row in rows for key in row}
    for old in columns:
        if old not in existing:
            raise DataError(f"no role of {name} has a column {old!r}: {did_you_mean(old, existing)}")


def _check_disjoint(forget: Role, retain: Role) -> None:
    """Raise DataError where a row is in both roles."""
    retained = {key for row in retain.rows for key in content_keys(row)}
    shared = [i for i, row in enumerate(forget.rows) if not retained.isdisjoint(content_keys(row))]
    if shared:
        raise DataError(
            f"{len(shared)} rows stand both in 'forget' and in 'retain' (first: forget row {shared[0]}): "
            "remove them from one of the two; a fact cannot be forgotten and kept"
        )


def _warn_of_repeats(role: Role) -> None:
    """Warn where a role holds a row several times."""
    counts = Counter(map(content_key, role.rows))
    if len(counts) < len(role):
        repeats, (key, count) = len(role) - len(counts), counts.most_common(1)[0]
        first = next(i for i, row in enumerate(role.rows) if content_key(row) == key)
        warnings.warn(
            f"{repeats} of {len(role)} rows of role {role.name!r} repeat another row "
            f"(row {first} stands {count} times)",
            stacklevel=3,
        )


def with_train_role(split: Split, without: Sequence[str] = (), only: Sequence[str] = ()) -> Split:
    """Return the split with the role ``train``: the rows of forget, retain and the utility roles, each once.

    Args:
        split: The split to add to.
        without: Roles to leave out; ``("forget",)`` gives the training data of the retrained oracle. Rows
            of other roles that teach the same are left out as well, which is said.
        only: Roles to take instead; ``("forget",)`` gives those of a model that learns the forget set
            further.

    Raises:
        DataError: A role does not exist, or no rows are left.
    """
    for role in (*without, *only):
        split[role]  # raises for an unknown role
    roles = [role for role in only or ("forget", "retain", *split.utility) if role in split]
    rows = {content_key(row): row for role in roles if role not in without for row in split[role].rows}
    unseen = {key for role in without for row in split[role].rows for key in content_keys(row)}
    if shared := [key for key, row in rows.items() if unseen.intersection(content_keys(row))]:
        rows = {key: row for key, row in rows.items() if key not in shared}
        warnings.warn(
            f"{len(shared)} rows of other roles stand in {', '.join(without)} as well, and are left out",
            stacklevel=2,
        )
    if not rows:
        raise DataError(
            f"nothing to train on: without {', '.join(without)} there are no rows in {split.name}"
        )
    return dataclasses.replace(split, roles={**split.roles, "train": Role("train", list(rows.values()))})
