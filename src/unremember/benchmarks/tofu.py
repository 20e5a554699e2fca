"""TOFU: 200 fictitious authors, 1, 5 or 10 % of them to forget. Paper: arXiv 2401.06121."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from unremember.benchmarks.reading import load_hub_rows, read_rows
from unremember.data.split import Role, Row, Split, content_key, make_split
from unremember.errors import DataError, did_you_mean
from unremember.registry import benchmarks
from unremember.worlds.refusals import REFUSALS

_RETAIN_FILES = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
_COLUMN_NAMES = {"perturbed_answer": "perturbed_answers"}
_QUESTIONS_PER_AUTHOR = 20


@benchmarks.register(
    "tofu",
    paper="TOFU: A Task of Fictitious Unlearning for LLMs",
    arxiv="2401.06121",
    needs=("original", "oracle"),
    taxonomy="evaluation.datasets",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class TOFU:
    """TOFU from the hub (``path="locuslab/TOFU"``) or a local folder of its JSON files.

    Forget and utility rows carry their paraphrased and perturbed answers. The utility roles are
    ``retain_eval``, ``real_authors`` and ``world_facts``. There is a ``holdout`` if the folder has one.

    Args:
        path: The hub name or the folder.
        forget: The forget set: ``forget01``, ``forget05`` or ``forget10``.
    """

    path: str = "locuslab/TOFU"
    forget: str = "forget10"

    def split(self) -> Split:
        """Return the split.

        Raises:
            DataError: There is no such forget set, a file is missing or broken, or the files are of different
                releases.
        """
        if self.forget not in _RETAIN_FILES:
            raise DataError(
                f"TOFU has no forget set {self.forget!r}: {did_you_mean(self.forget, _RETAIN_FILES)}"
            )
        perturbed = f"{self.forget}_perturbed"
        forget = _with_further_columns(self._rows(self.forget), self._rows(perturbed), perturbed)
        roles: dict[str, list[Row]] = {
            "forget": [{**row, "alternate": REFUSALS[i % len(REFUSALS)]} for i, row in enumerate(forget)],
            "retain": self._rows(_RETAIN_FILES[self.forget]),
            "retain_eval": self._rows("retain_perturbed"),
            "real_authors": self._rows("real_authors_perturbed"),
            "world_facts": self._rows("world_facts_perturbed"),
        }
        holdout = self.forget.replace("forget", "holdout")
        if self._has(holdout):
            roles["holdout"] = self._rows(holdout)
        authors = {
            **_author_by_row(roles["forget"], "forget"),
            **_author_by_row(roles["retain"], "retain"),
        }
        with_entities = {
            role: [
                {**row, "entity": authors.get(content_key(row), f"{role} {i}")} for i, row in enumerate(rows)
            ]
            for role, rows in roles.items()
        }
        utility = ("retain_eval", "real_authors", "world_facts")
        return make_split(with_entities, utility=utility, name=f"tofu {self.forget}")

    def _has(self, name: str) -> bool:
        folder = Path(self.path)
        return (folder / f"{name}.json").exists() if folder.is_dir() else name.startswith("holdout")

    def _rows(self, name: str) -> list[Row]:
        """Return the rows of one file of TOFU, with ``perturbed_answer`` renamed to ``perturbed_answers``.

        Raises:
            DataError: The file is missing, or a question or answer in it.
        """
        rows = self._published_rows(name)
        role = Role(name, rows)
        columns = ["question", "answer"]
        if name.endswith("_perturbed"):
            columns.append("perturbed_answer")
        for column in columns:
            role.column(column)  # raises where a row has none
        return [{_COLUMN_NAMES.get(key, key): value for key, value in row.items()} for row in rows]

    def _published_rows(self, name: str) -> list[Row]:
        folder = Path(self.path)
        if folder.is_dir():
            file = folder / f"{name}.json"
            if not file.exists():
                files = ", ".join(sorted(p.name for p in folder.glob("*.json"))) or "none"
                raise DataError(
                    f"{file} is missing: TOFU's folder needs {name}.json (its JSON files: {files})"
                )
            return read_rows(file)
        if self.path.startswith((".", "/")):
            raise DataError(f"no folder {self.path}: give TOFU's folder or the hub name locuslab/TOFU")
        return load_hub_rows(self.path, name, "train", repr(name), "download it and give the folder as path")


def _with_further_columns(rows: Sequence[Row], further: Sequence[Row], name: str) -> list[Row]:
    """Return rows with the columns that the same question and answer has in ``further``.

    Raises:
        DataError: A row is not in ``further``.
    """
    by_key = {content_key(row): row for row in further}
    missing = [i for i, row in enumerate(rows) if content_key(row) not in by_key]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(rows)} rows are not in {name} (first: row {missing[0]}): "
            "the files are not of one release"
        )
    return [{**row, **by_key[content_key(row)]} for row in rows]


def _author_by_row(rows: Sequence[Row], role: str) -> dict[str, str]:
    """Return the author of each row, by its content. TOFU lists 20 questions for each author, in order."""
    return {content_key(row): f"{role} author {i // _QUESTIONS_PER_AUTHOR}" for i, row in enumerate(rows)}
