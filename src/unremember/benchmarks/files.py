"""Your own data: one file for each role."""

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
    """Your own JSON, JSON-lines, CSV, TSV or Parquet files: ``roles: {forget: f.json, retain: r.csv}``.

    Args:
        roles: A file for each role.
        columns: New names of columns: ``{prompt: question}``. A file without the old name stays as it is.
        utility: The roles over which model utility is averaged.
    """

    roles: Mapping[str, str]
    columns: Mapping[str, str] | None = None
    utility: Sequence[str] = ()

    def split(self) -> Split:
        """Return the split.

        Raises:
            ConfigError: ``roles`` is not a mapping.
            DataError: A file cannot be read, or its rows cannot be used.
        """
        if not isinstance(self.roles, Mapping):
            raise ConfigError(
                f"files takes a file for each role, as data.roles.forget=forget.json, not {self.roles!r}"
            )
        rows = {role: read_table(Path(str(path))) for role, path in self.roles.items()}
        split = make_split(rows, utility=self.utility, columns=self.columns, name="files")
        for role in self.utility:
            split[role]  # raises for an unknown role
        return split
