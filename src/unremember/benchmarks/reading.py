"""Where rows come from: files of one's own, gzipped or not, and the hub."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unremember.errors import DataError

UNREADABLE = (OSError, EOFError, ValueError, zlib.error)
"""What reading a file that is not what it should be may raise."""


def text_of(file: Path) -> str:
    """The text of a file, gzipped or not. Raises one of ``UNREADABLE``."""
    raw = file.read_bytes()
    return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8-sig")


def read_rows(file: Path) -> list[Any]:
    """The objects of a JSON array, or of JSON lines."""
    try:
        text = text_of(file)
        listed = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except UNREADABLE as error:
        raise DataError(f"{file} is neither a JSON array nor JSON lines: {error}") from error
    odd = [i for i, row in enumerate(listed) if not isinstance(row, dict)]
    if odd or not listed:
        raise DataError(
            f"{file}: entry {odd[0]} is no object of column and value" if odd else f"{file} holds no rows"
        )
    return listed


def read_table(file: Path) -> list[Mapping[str, object]]:
    """The rows of a file; a cell that is empty is a column that its row does not have."""
    if not file.is_file():
        raise DataError(f"no file {file}")
    if file.suffix in (".json", ".jsonl"):
        return read_rows(file)
    import pandas

    readers = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}
    if file.suffix not in readers:
        raise DataError(
            f"{file}: cannot read {file.suffix or 'a file without ending'}; give .json, .jsonl, .csv or .parquet"
        )
    try:
        rows = readers[file.suffix](file).to_dict("records")
    except Exception as error:
        raise DataError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
    return [
        {
            str(key): value.tolist() if hasattr(value, "tolist") else value
            for key, value in row.items()
            if not missing(value)
        }
        for row in rows
    ]


def missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def from_hub(path: str, name: str | None, part: str, called: str, how: str) -> list[Any]:
    """A split ``part`` of the configuration ``name`` of a dataset on the hub. Raises DataError that says ``how`` to do without."""
    import datasets

    try:
        return list(datasets.load_dataset(path, name, split=part))
    except Exception as error:
        raise DataError(
            f"cannot load {called} of {path} from the hub ({type(error).__name__}): {how}"
        ) from error
