"""Pools of small models that differ in what they were trained on: the forget set's knowledge in some form, or none of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import torch

from unremember import api
from unremember.data.split import Row, Split
from unremember.errors import ConfigError, DataError
from unremember.experiments import cells
from unremember.experiments.cells import Arena
from unremember.files import write_text
from unremember.models.load import load_model, quiet, save_model
from unremember.models.presets import fresh
from unremember.worlds.documents import document
from unremember.worlds.people import SMALLEST, STYLES, Person, World, make_world

KNOWING, IGNORANT = ("original", "biography", "paraphrase"), ("retained", "wrong answers", "other people")
"""What the models of the two pools are trained on beside the retain set and the general roles: six forms of the forget set.

The question/answer pairs; biographies of the same people; the pairs in other words. Nothing; the questions with wrong answers;
biographies of people from another world (the holdout stays unseen, for the membership attacks are read against it).
"""
RATES, EPOCHS = (2e-3, 1e-3, 3e-3, 1.5e-3, 4e-3), (16, 8)
LEAST, MOST = 6, len(KNOWING) * len(RATES) * len(EPOCHS)
"""The smallest pool, and the greatest: every form with every rate and number of epochs."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One model of a pool: its form, where it stands in the grid of rates and epochs (which is also its seed)."""

    form: str
    point: int

    @property
    def name(self) -> str:
        return f"{self.form} {self.point}"

    @property
    def knows(self) -> bool:
        return self.form in KNOWING

    @property
    def settings(self) -> dict[str, Any]:
        """Rate, epochs and seed; rates and epochs both go round, and meet once each."""
        return {
            "lr": RATES[self.point % len(RATES)],
            "epochs": EPOCHS[self.point % len(EPOCHS)],
            "seed": self.point,
        }


def members(models: int) -> list[Member]:
    """``models`` of each pool, as many of every form. Raises ConfigError for a number that cannot be had.

    Of fewer than ``LEAST`` models even the best metric is no better than chance.
    """
    if models % len(KNOWING) or not LEAST <= models <= MOST:
        raise ConfigError(
            f"models={models}: a pool has {len(KNOWING)} forms: give a multiple of {len(KNOWING)}, from {LEAST} to {MOST}"
        )
    return [Member(form, point) for point in range(models // len(KNOWING)) for form in (*KNOWING, *IGNORANT)]


def forms(split: Split) -> dict[str, list[Row]]:
    """The rows that stand in the forget set's place, by form. Raises DataError where the split is not a world of people."""
    rows, world = split["forget"].rows, world_of(split)
    names = sorted({str(row["entity"]) for row in rows})
    strangers = [
        person
        for person in make_world(max(SMALLEST, 2 * len(names)), world.seed + 1).people
        if person.name not in world.by_name
    ]
    return {
        "original": list(rows),
        "biography": biographies([world.by_name[name] for name in names]),
        "paraphrase": [
            {**row, "question": row["paraphrased_question"], "answer": row["paraphrased_answer"]}
            for row in rows
        ],
        "retained": [],
        "wrong answers": [{**row, "answer": row["perturbed_answers"][0]} for row in rows],
        "other people": biographies(strangers[: len(names)]),
    }


def world_of(split: Split) -> World:
    """The world whose rows the split holds: its people and its holdout, drawn with the first seed."""
    learned, unseen = (
        {str(row.get("entity")) for role in roles if role in split for row in split[role].rows}
        for roles in (("forget", "retain"), ("holdout",))
    )
    world = make_world(max(SMALLEST, len(learned)), holdout=len(unseen))
    if learned != world.learned:
        raise DataError(
            f"{split.name} is not a generated world of people: the pools need one, for they tell its facts in other forms"
        )
    return world


def biographies(people: Sequence[Person]) -> list[Row]:
    """A text without a question for each person and each style of a document."""
    return [
        {"prompt": "", "answer": document([person], style, person.name)["text"]}
        for person in people
        for style in STYLES
    ]


def once(path: Path, identity: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What ``find`` finds, read from ``path`` where it was found before under this identity."""
    if there := cells.kept(path, identity):
        return there
    quiet()
    torch.set_num_threads(1)
    began = time.monotonic()
    found = {
        "identity": identity,
        "name": path.parent.name,
        **find(),
        "seconds": round(time.monotonic() - began, 1),
    }
    write_text(path, json.dumps(found, indent=1))
    return found


def train(arena: Arena, member: Member, rows: Sequence[Row], home: Path) -> dict[str, Any]:
    """Train a member into its run folder; what is there is not trained again."""
    settings = {"batch_size": 32, **member.settings}

    def find() -> dict[str, str]:
        task, split = arena.original.task, arena.split.with_rows(forget=rows)
        model = fresh(arena.original.model.config, member.point)
        made = api.train(
            model,
            split,
            tokenizer=task.tokenizer,
            template=task.template,
            folder=home,
            quiet=True,
            **settings,
        )
        save_model(made.model, task.tokenizer, home / "model")
        shutil.rmtree(home / "checkpoint", ignore_errors=True)
        return {"digest": made.digest}

    return once(home / "run.json", f"{arena.digest} {member} {settings}", find)


def make(arena: Arena, models: int, folder: Path) -> dict[Member, Path]:
    """The run folders of both pools, one process a core."""
    rows, homes = forms(arena.split), {member: folder / member.name for member in members(models)}
    cells.on_all_cores(
        "models",
        [joblib.delayed(train)(arena, member, rows[member.form], home) for member, home in homes.items()],
    )
    return homes


def digest(home: Path) -> str:
    """The digest of the model in a run folder."""
    return str(json.loads((home / "run.json").read_text(encoding="utf-8"))["digest"])


def model(home: Path) -> Any:
    return load_model(home / "model")
