"""Read rows from files, gzipped or not, and from the hub."""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
import zlib
from pathlib import Path
from typing import Any

from unremember.errors import DataError

READ_ERRORS = (OSError, EOFError, ValueError, RecursionError, zlib.error)
"""The errors of reading a file that is missing, broken or of another format."""
_BLANKS = re.compile(r"\s*")


def read_bytes(file: Path) -> bytes:
    """Return the bytes of a file, gzipped or not. Raises one of ``READ_ERRORS``."""
    raw = file.read_bytes()
    return gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw


def read_text(file: Path) -> str:
    """Return the text of a file, gzipped or not. Raises one of ``READ_ERRORS``."""
    return read_bytes(file).decode("utf-8-sig")


def read_rows(file: Path) -> list[Any]:
    """Return the objects of a JSON array, or of JSON lines; an object may take several lines.

    Raises:
        DataError: The file has another format, or no rows.
    """
    try:
        text = read_text(file)
        rows = json.loads(text) if text.lstrip().startswith("[") else _json_values(text)
    except READ_ERRORS as error:
        raise DataError(f"{file} is neither a JSON array nor JSON lines: {error}") from error
    if not rows:
        raise DataError(f"{file} holds no rows")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{file}: entry {i} is not an object of columns and values")
    return rows


def _json_values(text: str) -> list[Any]:
    """Return the JSON values that follow one another in a text. Raises ValueError where it holds others."""
    decoder, values = json.JSONDecoder(), []
    start = len(text) - len(text.lstrip())
    while start < len(text):
        value, end = decoder.raw_decode(text, start)
        values.append(value)
        start = _BLANKS.match(text, end).end()  # type: ignore[union-attr]
    return values


def read_table(file: Path) -> list[Any]:
    """Return the rows of a JSON, JSON-lines, CSV, TSV or Parquet file, gzipped or not.

    The cells of CSV and TSV are the text as it is written; a row lacks the columns of its empty cells.

    Raises:
        DataError: The file does not exist, cannot be read, or has another format.
    """
    if not file.is_file():
        raise DataError(f"no file {file}")
    ending = Path(file.name.lower().removesuffix(".gz")).suffix
    if ending in (".json", ".jsonl"):
        return read_rows(file)
    if ending not in (".csv", ".tsv", ".parquet"):
        raise DataError(
            f"{file}: cannot read {ending or 'a file without an ending'}; "
            "give .json, .jsonl, .csv, .tsv or .parquet"
        )
    try:
        return _parquet_rows(file) if ending == ".parquet" else _text_cells(file, ending)
    except Exception as error:
        raise DataError(f"cannot read {file}: {str(error).splitlines()[0]}") from error


def _text_cells(file: Path, ending: str) -> list[Any]:
    """Return the rows of a CSV or TSV file. Raises ParserError where a row has more cells than columns."""
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        table = pandas.read_csv(
            io.StringIO(read_text(file)),
            sep="\t" if ending == ".tsv" else ",",
            dtype=str,
            keep_default_na=False,
            index_col=False,
        )
    return [{key: cell for key, cell in row.items() if cell} for row in table.to_dict("records")]


def _parquet_rows(file: Path) -> list[Any]:
    """Return the rows of a Parquet file as Python's own values: an integer stays one beside a null."""
    import pandas

    raw = io.BytesIO(read_bytes(file))
    return pandas.read_parquet(raw, dtype_backend="pyarrow").to_dict("records")


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
