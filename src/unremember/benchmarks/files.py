"""Your own data: one file a role."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from unremember.benchmarks.tofu import read_rows
from unremember.data.split import Split, make_split
from unremember.errors import DataError
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
        rows = {role: read_table(Path(path)) for role, path in self.roles.items()}
        return make_split(rows, utility=self.utility, columns=self.columns, name="files")


def read_table(file: Path) -> list[Mapping[str, object]]:
    if not file.exists():
        raise DataError(f"no file {file}")
    if file.suffix in (".json", ".jsonl"):
        return read_rows(file)
    import pandas

    readers = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}
    if file.suffix not in readers:
        raise DataError(f"{file}: cannot read {file.suffix or 'a file without ending'}; give .json, .jsonl, .csv or .parquet")
    return readers[file.suffix](file).to_dict("records")
