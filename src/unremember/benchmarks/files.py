"""Your own data: one file a role."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from unremember.benchmarks.tofu import read_rows
from unremember.data.split import Split, make_split
from unremember.errors import ConfigError, DataError
from unremember.registry import benchmarks


@benchmarks.register("files", fidelity="own")
@dataclasses.dataclass(frozen=True)
class Files:
    """JSON, JSON-lines, CSV or Parquet files by role: ``roles: {forget: f.json, retain: r.csv}``.

    ``columns`` renames columns (``{prompt: question}``); ``utility`` names the roles that measure utility.
    """

    roles: Mapping[str, str]
    columns: Mapping[str, str] | None = None
    utility: Sequence[str] = ()

    def split(self) -> Split:
        if not isinstance(self.roles, Mapping):
            raise ConfigError(f"files takes a file for each role, as data.roles.forget=forget.json, not {self.roles!r}")
        rows = {role: read_table(Path(str(path))) for role, path in self.roles.items()}
        made = make_split(rows, utility=self.utility, columns=self.columns, name="files")
        for role in self.utility:
            made[role]
        return made


def read_table(file: Path) -> list[Mapping[str, object]]:
    """The rows of a file; a cell that is empty is a column that its row does not have."""
    if not file.is_file():
        raise DataError(f"no file {file}")
    if file.suffix in (".json", ".jsonl"):
        return read_rows(file)
    import pandas

    readers = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}
    if file.suffix not in readers:
        raise DataError(f"{file}: cannot read {file.suffix or 'a file without ending'}; give .json, .jsonl, .csv or .parquet")
    try:
        rows = readers[file.suffix](file).to_dict("records")
    except Exception as error:
        raise DataError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
    return [{str(key): value.tolist() if hasattr(value, "tolist") else value for key, value in row.items() if not missing(value)} for row in rows]


def missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)
