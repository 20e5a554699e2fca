"""The arenas of the experiments: generated worlds of people, whose models are trained here, and TOFU."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember import api
from unremember.errors import ConfigError
from unremember.experiments.cells import Arena
from unremember.observe.inventing import invent, write_invented
from unremember.runs.config import parse_config
from unremember.runs.folder import artefact_of, split_of
from unremember.runs.forget import run_forget
from unremember.runs.train import run_train
from unremember.runs.workers import one_thread

ARENA_TRAINING: dict[str, Any] = {"epochs": 12, "lr": 2e-3, "batch_size": 32}
"""How the models of a world of people are trained."""
RETRAINING: dict[str, Any] = {
    "method": "retrain",
    "epochs": 19,
    "lr": 1e-3,
    "batch_size": 16,
    "seed": 1,
}
"""How TOFU's second oracle is trained where only one is given."""
REINFORCING: dict[str, Any] = {"epochs": 10, "lr": 1e-3, "batch_size": 16}
"""How the reinforced model of whp is trained."""


@dataclasses.dataclass(frozen=True)
class ArenaSource:
    """Where arenas come from.

    Args:
        work: The folder of the models that are trained; finished ones are used again.
        tofu: TOFU's folder, or its name on the hub.
        original: For TOFU, the model that knows the forget set.
        oracles: For TOFU, models retrained without it; of a single one a second is trained.
    """

    work: Path
    tofu: str = "locuslab/TOFU"
    original: str = ""
    oracles: Sequence[str] = ()

    def arena(self, name: str) -> Arena:
        """Return an arena; the models of a world of people are trained where they do not exist yet.

        Raises:
            ConfigError: There is no such arena, or TOFU's models are not named.
        """
        if name == "tofu":
            return self.tofu_arena()
        data = people_data(name)
        original, *oracles = [artefact_of(str(folder)) for folder in train_models(data, self.work / name)]
        return Arena(name, split_of(data), original, tuple(oracles), 16, 80, 4, (3e-4, 1e-3))

    def tofu_arena(self) -> Arena:
        """Return the arena of TOFU."""
        if not (self.original and self.oracles):
            raise ConfigError(
                "the arena tofu needs --original and --oracle (a model retrained without the forget set)"
            )
        data, oracles = {"name": "tofu", "path": self.tofu}, list(self.oracles)
        if len(oracles) == 1:
            second = retrain_oracle(data, self.original, self.work / "tofu" / "oracle-1")
            oracles.append(str(second))
        models = tuple(artefact_of(oracle) for oracle in oracles)
        return Arena("tofu", split_of(data), artefact_of(self.original), models, 16, 80, 10, (3e-4, 1e-3))


def people_data(name: str) -> dict[str, Any]:
    """Return the data of a world of people, such as ``people-40``. Raises ConfigError for any other name."""
    kind, _, count = name.partition("-")
    if kind != "people" or not count.isdigit():
        raise ConfigError(f"no arena {name!r}: there are people-<count> (people-40) and tofu")
    return {"name": "people", "count": int(count)}


def train_models(data: Any, folder: Path, training: Mapping[str, Any] = ARENA_TRAINING) -> list[Path]:
    """Train an original and two oracles; return their run folders."""
    runs: dict[str, dict[str, Any]] = {
        "original": {},
        "oracle-0": {"without": ["forget"]},
        "oracle-1": {"without": ["forget"], "seed": 1},
    }
    with one_thread():
        for name, changes in runs.items():
            run_train(parse_config({"data": data, **training, **changes}), folder / name)
    return [folder / name for name in runs]


def retrain_oracle(data: Any, original: str, folder: Path) -> Path:
    """Retrain an oracle of the original's architecture from another seed's weights; return its run folder."""
    with one_thread():
        run_forget(parse_config({"data": data, "model": original, **RETRAINING}), folder)
    return folder


def method_settings(arena: Arena, folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the parameters of methods that need something of the original, which is made here once."""
    settings: dict[str, dict[str, Any]] = {}
    if "altpo" in names:
        settings["altpo"] = {"alternates": str(invented_answers(arena, folder))}
    if "whp" in names:
        settings["whp"] = {"reinforced": str(reinforced_model(arena, folder)), "strength": 20.0}
    return settings


def reinforced_model(arena: Arena, folder: Path) -> Path:
    """Return the model folder of the original after further training on the forget set alone."""
    home = folder / f"reinforced-{arena.original.weights[:12]}"
    if not (home / "model").is_dir():
        with one_thread():
            artefact = api.train(arena.original, arena.split, only=["forget"], folder=home, **REINFORCING)
        artefact.save(home / "model")
    return home / "model"


def invented_answers(arena: Arena, folder: Path) -> Path:
    """Return the file of other answers that the original invents for the forget questions."""
    original, role = arena.original, arena.split["forget"]
    file = folder / f"alternates-{original.weights[:12]}.jsonl"
    if not file.exists():
        write_invented(file, role, invent(original, role))
    return file
