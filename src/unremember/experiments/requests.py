"""Streams of requests, after MUSE (arXiv 2407.06460): ever larger ones (C5), or one after another (C6).

A sequential stream starts each step from the model that the step before it saved, a growing one from the
original. After every step all requests up to it are measured again, so that a resurgence is seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unremember import api
from unremember.data.split import Split, content_key
from unremember.engine.settings import Settings
from unremember.errors import Collapsed, ConfigError
from unremember.experiments.arenas import train_models
from unremember.observe.store import Store
from unremember.registry import audits, benchmarks, methods
from unremember.runs.config import RunConfig
from unremember.runs.folder import artefact_of
from unremember.runs.matched import read_cell, write_cell
from unremember.tasks.artefact import Artefact, load_artefact

REQUEST_METHODS = ("gradient_ascent", "npo", "simnpo")
"""The methods of a stream where none is named."""
PUBLISHED_SETTINGS = ("schedule=constant", "warmup=0")
"""How MUSE runs its methods; ten epochs at most are the default."""
_TRAINING = {"epochs": 60, "lr": 4e-3, "batch_size": 16}
"""How a small model learns the documents by heart where none is given."""

StepCell = Mapping[str, Any]
"""What was measured after one step of a stream."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """Requests, a split each, with the model that learned them all, its oracles and the settings of the loop.

    Args:
        sequential: Each step starts from the model of the step before it, not from the original.
        stops: A step ends at the first epoch at which the forget set is known no better than by the oracles.
    """

    name: str
    requests: Sequence[Split]
    sequential: bool
    original: Artefact
    oracles: tuple[Artefact, ...]
    settings: Settings
    stops: bool = True

    @cached_property
    def digest(self) -> str:
        """What decides every step beside its method, its start and its requests."""
        oracles = [oracle.weights for oracle in self.oracles]
        return f"{self.original.weights} {oracles} {self.settings} {self.stops}"


def make_stream(
    config: RunConfig,
    kind: str,
    work: Path,
    *,
    original: str = "",
    oracles: Sequence[str] = (),
    stops: bool = True,
) -> Stream:
    """Return the stream of a benchmark; its models are trained where none are given.

    Args:
        config: The data, the template and the settings.
        kind: ``sust`` (one after another) or ``scal`` (ever larger).
        work: The folder of the models that are trained.

    Raises:
        ConfigError: The benchmark has no streams, only one kind of control is given, or the data to train on
            do not hold every request.
    """
    benchmark = benchmarks.make(config.data)
    splits = requests_of_benchmark(benchmark, kind)
    if bool(original) != bool(oracles):
        raise ConfigError(
            "give both --original and --oracle (a model retrained without any of the requests), or neither"
        )
    name = config.data if isinstance(config.data, str) else config.data["name"]
    models = [original, *oracles]
    if not original:
        check_learned(splits, benchmark.split())
        models = [str(folder) for folder in train_models(config.data, work / name / "models", _TRAINING)]
    first, *retrained = [artefact_of(model, config.template) for model in models]
    return Stream(f"{name} {kind}", splits, kind == "sust", first, tuple(retrained), config.settings, stops)


def run_streams(stream: Stream, names: Sequence[str], work: Path) -> list[tuple[str, Sequence[StepCell]]]:
    """Run a stream with each method; return their cells. Raises ConfigError for an unknown method."""
    for name in names:
        methods.entry(name)
    return [(name, run_stream(stream, name, work)) for name in names]


def requests_of_benchmark(benchmark: Any, kind: str) -> Sequence[Split]:
    """Return the requests of a benchmark. Raises ConfigError for one that has none."""
    if not hasattr(benchmark, "requests"):
        raise ConfigError("this benchmark has no streams of requests: articles and muse have them")
    return benchmark.requests(kind)


def check_learned(requests: Sequence[Split], whole: Split) -> None:
    """Raise ConfigError where a model that learns ``whole`` would not learn every request."""
    rows = {content_key(row) for row in whole["forget"].rows}
    for request in requests:
        if any(content_key(row) not in rows for row in request["forget"].rows):
            raise ConfigError(
                f"{whole.name} does not hold the request {request.name}: join the files of the stream as "
                "data.forget=a+b, or give --original and --oracle"
            )


def run_stream(stream: Stream, method: str, folder: Path) -> list[StepCell]:
    """Return the cells of a method's steps; a finished one is read, any other is run and measured.

    A collapse is a recorded result; a sequential stream ends there.
    """
    cells: list[StepCell] = []
    digest, start = stream.original.weights, stream.original.copy
    for i in range(len(stream.requests)):
        cell, model = run_step(stream, method, i, digest, start, folder)
        cells.append(cell)
        if stream.sequential:
            if not cell["digest"]:
                break
            digest, start = cell["digest"], loader(model)
    return cells


def loader(folder: Path) -> Callable[[], Artefact]:
    """Return a function that loads the model in a folder."""

    def load() -> Artefact:
        return load_artefact(folder)

    return load


def run_step(
    stream: Stream, method: str, i: int, digest: str, start: Callable[[], Artefact], folder: Path
) -> tuple[StepCell, Path]:
    """Run one step of a method.

    Args:
        i: The number of the step, from 0.
        digest: The hash of the weights that it starts from.
        start: Returns an artefact with these weights, which may be changed.

    Returns:
        The cell of the step, and the folder of its model.
    """
    requests = stream.requests[: i + 1]
    text = f"{stream.digest} {method} {digest} {[split.digest for split in requests]}"
    step_identity = hashlib.sha256(text.encode()).hexdigest()
    home = folder / f"{method}-{i + 1}-{step_identity[:12]}"
    if finished := read_cell(home / "cell.json", step_identity):
        return finished, home / "model"
    split, began = requests[-1], time.monotonic()
    known_no_better = known_as_by_oracles(stream, split, folder)
    cell: dict[str, Any] = {
        "identity": step_identity,
        "method": method,
        "step": i + 1,
        "request": split.name,
        "digest": "",
        "figures": {},
        "note": "",
    }

    def watch(model: Any, step: int) -> bool:
        return stream.stops and known_no_better(Artefact(model, stream.original.task))

    settings = dataclasses.asdict(stream.settings)
    try:
        artefact = api.forget(start(), split, method, folder=home, watch=watch, inplace=True, **settings)
        artefact.save(home / "model")
        cell |= {
            "digest": artefact.weights,
            "epochs": epochs_begun(home),
            "reached": known_no_better(artefact),
            "figures": {
                request.name: measure_step(stream, artefact, request, folder) for request in requests
            },
        }
    except Collapsed as error:
        cell["note"] = f"collapsed: {error}"
    cell["seconds"] = round(time.monotonic() - began, 1)
    write_cell(home / "cell.json", cell)
    for leftover in ("checkpoint", "reference"):
        shutil.rmtree(home / leftover, ignore_errors=True)
    return cell, home / "model"


def epochs_begun(home: Path) -> int:
    """Return the number of epochs that a run began, from its log."""
    lines = (home / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return math.ceil(json.loads(lines[-1])["epoch"])


def known_as_by_oracles(stream: Stream, split: Split, folder: Path) -> Callable[[Artefact], bool]:
    """Return a check that an artefact knows the forget set no better than the oracles: MUSE's stop rule.

    It is measured by the questions on the forget set, or by its passages where there are none.
    """
    audit = audits.make("knowledge_memorisation" if "knowmem" in split else "verbatim_memorisation")
    store = Store(folder / "observations")

    def level(artefact: Artefact) -> float:
        observations = store.observe(artefact, split, audit.requests(split), quiet=True)
        return float(audit.measure(observations, []).value)

    bound = sum(level(oracle) for oracle in stream.oracles) / len(stream.oracles)

    def no_better(artefact: Artefact) -> bool:
        return level(artefact) <= bound

    return no_better


def measure_step(stream: Stream, artefact: Artefact, split: Split, folder: Path) -> dict[str, Any]:
    """Return the measurements of a request as rows by name."""
    measurements = api.audit(
        artefact,
        split,
        oracle=stream.oracles,
        original=stream.original,
        store=folder / "observations",
        quiet=True,
    )
    return {m.name: m.row() for m in measurements}
