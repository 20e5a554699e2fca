"""Read rows from files, gzipped or not, and from the hub."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unremember.errors import DataError

READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)
"""The errors of reading a file that is missing, broken or of another format."""


def read_text(file: Path) -> str:
    """Return the text of a file, gzipped or not. Raises one of ``READ_ERRORS``."""
    raw = file.read_bytes()
    return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8-sig")


def read_rows(file: Path) -> list[Any]:
    """Return the objects of a JSON array or of JSON lines.

    Raises:
        DataError: The file has another format, or no rows.
    """
    try:
        text = read_text(file)
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except READ_ERRORS as error:
        raise DataError(f"{file} is neither a JSON array nor JSON lines: {error}") from error
    if not rows:
        raise DataError(f"{file} holds no rows")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{file}: entry {i} is not an object of columns and values")
    return rows


def read_table(file: Path) -> list[Mapping[str, object]]:
    """Return the rows of a JSON, JSON-lines, CSV or Parquet file; a row lacks the columns of its empty cells.

    Raises:
        DataError: The file does not exist, cannot be read, or has another format.
    """
    if not file.is_file():
        raise DataError(f"no file {file}")
    if file.suffix in (".json", ".jsonl"):
        return read_rows(file)
    import pandas

    readers = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}
    if file.suffix not in readers:
        raise DataError(
            f"{file}: cannot read {file.suffix or 'a file without an ending'}; "
            "give .json, .jsonl, .csv or .parquet"
        )
    try:
        rows = readers[file.suffix](file).to_dict("records")
    except Exception as error:
        raise DataError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
    return [
        {str(key): _plain_value(value) for key, value in row.items() if not _is_empty(value)} for row in rows
    ]


def _plain_value(value: Any) -> Any:
    """Return an array as lists, and any other value as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def load_hub_rows(path: str, configuration: str | None, part: str, name: str, hint: str) -> list[Any]:
    """Load one part of a dataset on the hub.

    Args:
        path: The dataset.
        configuration: Its configuration; None for the only one.
        part: The split of the configuration.
        name: What messages call the part.
        hint: What to do if it cannot be loaded.

    Raises:
        DataError: It cannot be loaded.
    """
    import datasets

    try:
        return list(datasets.load_dataset(path, configuration, split=part))
    except Exception as error:
        raise DataError(
            f"cannot load {name} of {path} from the hub ({type(error).__name__}): {hint}"
        ) from error
