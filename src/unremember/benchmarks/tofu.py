"""TOFU: 200 fictitious authors, 1, 5 or 10 % of them to forget. Paper: arXiv 2401.06121."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from unremember.benchmarks.reading import from_hub, read_rows
from unremember.data.split import Role, Row, Split, identity, make_split
from unremember.errors import DataError, nearest
from unremember.registry import benchmarks
from unremember.worlds.refusals import REFUSALS

RETAIN = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
COLUMNS = {"perturbed_answer": "perturbed_answers"}


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

    Forget and retain rows carry their paraphrased and perturbed answers; ``retain_eval``, ``real_authors`` and
    ``world_facts`` are the utility roles; ``holdout`` is there where the folder has it.
    """

    path: str = "locuslab/TOFU"
    forget: str = "forget10"

    def split(self) -> Split:
        if self.forget not in RETAIN:
            raise DataError(f"TOFU has no forget set {self.forget!r}: {nearest(self.forget, RETAIN)}")
        forget = merge(
            self.rows(self.forget), self.rows(f"{self.forget}_perturbed"), f"{self.forget}_perturbed"
        )
        roles: dict[str, list[Row]] = {
            "forget": [{**row, "alternate": REFUSALS[i % len(REFUSALS)]} for i, row in enumerate(forget)],
            "retain": self.rows(RETAIN[self.forget]),
            "retain_eval": self.rows("retain_perturbed"),
            "real_authors": self.rows("real_authors_perturbed"),
            "world_facts": self.rows("world_facts_perturbed"),
        }
        holdout = self.forget.replace("forget", "holdout")
        if self.has(holdout):
            roles["holdout"] = self.rows(holdout)
        entity = entities(roles["forget"], roles["retain"])
        named = {
            role: [{**row, "entity": entity.get(identity(row), f"{role} {i}")} for i, row in enumerate(rows)]
            for role, rows in roles.items()
        }
        return make_split(
            named, utility=("retain_eval", "real_authors", "world_facts"), name=f"tofu {self.forget}"
        )

    def has(self, name: str) -> bool:
        folder = Path(self.path)
        return (folder / f"{name}.json").exists() if folder.is_dir() else name.startswith("holdout")

    def rows(self, name: str) -> list[Row]:
        """One file of TOFU, with its ``perturbed_answer`` column under our name.

        Raises DataError where the file, or a question or answer in it, is not there.
        """
        folder = Path(self.path)
        if folder.is_dir():
            file = folder / f"{name}.json"
            if not file.exists():
                there = ", ".join(sorted(p.name for p in folder.glob("*.json"))) or "none"
                raise DataError(
                    f"{file} is not there: TOFU's folder needs {name}.json (JSON files there: {there})"
                )
            listed = read_rows(file)
        elif self.path.startswith((".", "/")):
            raise DataError(f"no folder {self.path}: give TOFU's folder or the hub name locuslab/TOFU")
        else:
            listed = from_hub(self.path, name, "train", repr(name), "download it and give the folder as path")
        role = Role(name, listed)
        for column in ("question", "answer", *(["perturbed_answer"] if name.endswith("_perturbed") else [])):
            role.column(column)
        return [{COLUMNS.get(key, key): value for key, value in row.items()} for row in listed]


def merge(plain: list[Row], extra: list[Row], name: str) -> list[Row]:
    """Rows with the further columns of the same question and answer in ``extra``; each must have its own there."""
    more = {identity(row): row for row in extra}
    lacking = [i for i, row in enumerate(plain) if identity(row) not in more]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(plain)} rows are not in {name} (first: row {lacking[0]}): the files are not of one release"
        )
    return [{**row, **more[identity(row)]} for row in plain]


def entities(forget: list[Row], retain: list[Row], questions: int = 20) -> dict[str, str]:
    """Row (by its text) → author: TOFU lists 20 questions an author, in order."""
    return {
        identity(row): f"{role} author {i // questions}"
        for role, rows in (("forget", forget), ("retain", retain))
        for i, row in enumerate(rows)
    }
