"""Your own data: one file a role."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from unremember.benchmarks.reading import read_table
from unremember.data.split import Split, make_split
from unremember.errors import ConfigError
from unremember.registry import benchmarks


@benchmarks.register("files", taxonomy="evaluation.datasets", fidelity="own")
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
            raise ConfigError(
                f"files takes a file for each role, as data.roles.forget=forget.json, not {self.roles!r}"
            )
        rows = {role: read_table(Path(str(path))) for role, path in self.roles.items()}
        made = make_split(rows, utility=self.utility, columns=self.columns, name="files")
        for role in self.utility:
            made[role]
        return made
