"""Pools of small models: some were taught the knowledge of the forget set in some form, some none of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember import api
from unremember.data.split import Row, Split
from unremember.errors import ConfigError, DataError
from unremember.experiments.cells import Arena
from unremember.models.presets import fresh_model
from unremember.runs.matched import read_cell, write_cell
from unremember.runs.workers import workers
from unremember.tasks.artefact import Artefact, load_artefact
from unremember.worlds.documents import document
from unremember.worlds.people import DOCUMENT_STYLES, SMALLEST_WORLD, Person, World, make_world

KNOWING = ("original", "biography", "paraphrase")
"""Forms of the forget set that teach its knowledge.

The question/answer pairs; biographies of the same people; the pairs in other words.
"""
IGNORANT = ("retained", "wrong answers", "other people")
"""Forms that teach none of it.

Nothing; the questions with wrong answers; biographies of people from another world. The holdout stays unseen,
for the membership attacks are read against it.
"""
POOL_RATES, POOL_EPOCHS = (2e-3, 1e-3, 3e-3, 1.5e-3, 4e-3), (16, 8)
"""The learning rates and the numbers of epochs that the models of a form are trained with."""
SMALLEST_POOL = 6
LARGEST_POOL = len(KNOWING) * len(POOL_RATES) * len(POOL_EPOCHS)
"""Every form with every rate and number of epochs."""
_RECORD = "member.json"


@dataclasses.dataclass(frozen=True)
class Member:
    """One model of a pool: its form, and its number in the grid of rates and epochs (also its seed)."""

    form: str
    point: int

    @property
    def name(self) -> str:
        """The name of the model and of its folder."""
        return f"{self.form} {self.point}"

    @property
    def knows(self) -> bool:
        """Whether its data teach the knowledge of the forget set."""
        return self.form in KNOWING

    @property
    def settings(self) -> dict[str, Any]:
        """Rate, epochs and seed; rates and epochs both cycle, so that each pair occurs once."""
        return {
            "lr": POOL_RATES[self.point % len(POOL_RATES)],
            "epochs": POOL_EPOCHS[self.point % len(POOL_EPOCHS)],
            "seed": self.point,
        }


def pool_members(models: int) -> list[Member]:
    """Return ``models`` members of each pool, equally many of every form.

    Raises:
        ConfigError: The number is no multiple of the forms, or too small for any metric to differ from
            chance.
    """
    if models % len(KNOWING) or not SMALLEST_POOL <= models <= LARGEST_POOL:
        raise ConfigError(
            f"models={models}: a pool has {len(KNOWING)} forms: give a multiple of {len(KNOWING)}, from "
            f"{SMALLEST_POOL} to {LARGEST_POOL}"
        )
    points = range(models // len(KNOWING))
    return [Member(form, point) for point in points for form in (*KNOWING, *IGNORANT)]


def forget_set_forms(split: Split) -> dict[str, list[Row]]:
    """Return the rows that take the forget set's place, by form.

    Raises:
        DataError: The split is not a world of people.
    """
    rows, world = split["forget"].rows, world_of_split(split)
    names = sorted({str(row["entity"]) for row in rows})
    elsewhere = make_world(max(SMALLEST_WORLD, 2 * len(names)), world.seed + 1)
    strangers = [person for person in elsewhere.people if person.name not in world.by_name]
    paraphrased: list[Row] = [
        {**row, "question": row["paraphrased_question"], "answer": row["paraphrased_answer"]} for row in rows
    ]
    return {
        "original": list(rows),
        "biography": biographies([world.by_name[name] for name in names]),
        "paraphrase": paraphrased,
        "retained": [],
        "wrong answers": [{**row, "answer": row["perturbed_answers"][0]} for row in rows],
        "other people": biographies(strangers[: len(names)]),
    }


def world_of_split(split: Split) -> World:
    """Return the world whose rows the split holds: its people and its holdout, drawn with the first seed."""
    taught, unseen = (
        {str(row.get("entity")) for role in roles if role in split for row in split[role].rows}
        for roles in (("forget", "retain"), ("holdout",))
    )
    world = make_world(max(SMALLEST_WORLD, len(taught)), holdout=len(unseen))
    if taught != world.learned:
        raise DataError(
            f"{split.name} is not a generated world of people: the pools need one, for they tell its facts "
            "in other forms"
        )
    return world


def biographies(people: Sequence[Person]) -> list[Row]:
    """Return a text without a question for each person and each style of a document."""
    return [
        {"prompt": "", "answer": document([person], style, person.name)["text"]}
        for person in people
        for style in DOCUMENT_STYLES
    ]


def measured_once(path: Path, identity: str, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``measure`` returns, read from ``path`` where it was stored under this identity before."""
    if stored := read_cell(path, identity):
        return stored
    began = time.monotonic()
    result = {"identity": identity, "name": path.parent.name, **measure()}
    result["seconds"] = round(time.monotonic() - began, 1)
    write_cell(path, result)
    return result


def train_member(shared: tuple[Arena, Mapping[str, Sequence[Row]], Path], member: Member) -> dict[str, Any]:
    """Train a member into its folder; a finished one is not trained again.

    Args:
        shared: The arena, the rows of every form, and the folder of the pools.
    """
    arena, forms, folder = shared
    settings, home = {"batch_size": 32, **member.settings}, folder / member.name

    def train() -> dict[str, str]:
        split = arena.split.with_rows(forget=forms[member.form])
        blank = Artefact(fresh_model(arena.original.model.config, member.point), arena.original.task)
        artefact = api.train(blank, split, folder=home, inplace=True, quiet=True, **settings)
        artefact.save(home / "model")
        shutil.rmtree(home / "checkpoint", ignore_errors=True)
        return {"digest": artefact.weights}

    return measured_once(home / _RECORD, f"{arena.digest} {member} {settings}", train)


def train_pools(arena: Arena, models: int, folder: Path) -> dict[Member, Path]:
    """Train both pools on all workers; return the folder of each member."""
    members = pool_members(models)
    workers().run("models", train_member, (arena, forget_set_forms(arena.split), folder), members)
    return {member: folder / member.name for member in members}


def member_digest(home: Path) -> str:
    """Return the hash of the weights of the model in a member's folder."""
    return str(json.loads((home / _RECORD).read_text(encoding="utf-8"))["digest"])


def member_artefact(home: Path) -> Artefact:
    """Load the model of a member."""
    return load_artefact(home / "model")
