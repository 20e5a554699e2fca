"""``bench requests``: a stream of forget requests, after MUSE's scaling and sustainability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unremember.cli.commands import KEYS, ORACLE, ORIGINAL
from unremember.errors import ConfigError

if TYPE_CHECKING:
    from unremember.data.split import Split

METHODS = ("gradient_ascent", "npo", "simnpo")
TRAINING = {"epochs": 60, "lr": 4e-3, "batch_size": 16}
"""What teaches a small model the documents by heart, where none is given."""
PUBLISHED = ("schedule=constant", "warmup=0")
"""How MUSE runs its methods; ten epochs at most are the default."""


def bench_requests(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK", help="articles, or muse.")],
    kind: Annotated[
        Literal["sust", "scal"], typer.Option(help="sust: one after another; scal: ever larger.")
    ] = "sust",
    method: Annotated[list[str] | None, typer.Option("--method", help="May be given several times.")] = None,
    original: ORIGINAL = "",
    oracle: ORACLE = None,
    all_epochs: Annotated[
        bool, typer.Option("--all-epochs", help="Do not stop where the oracle's level is reached.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the page and its figure.")] = Path(
        "docs/results"
    ),
    work: Annotated[Path, typer.Option("--work", "-w", help="Folder of models and finished steps.")] = Path(
        "runs/bench"
    ),
    keys: KEYS = None,
) -> None:
    """Requests one after another, or ever larger, each measured again after every later one.

    unremember bench requests articles data.count=40 --method npo --method gradient_difference lr=5e-4 batch_size=16

    unremember bench requests muse --kind scal --original MODEL --oracle RETRAINED data.path=MUSE-News lr=1e-5
    """
    from unremember.cli.bench import trained
    from unremember.cli.config import read_config
    from unremember.cli.folder import result_of
    from unremember.experiments import requests
    from unremember.registry import benchmarks, methods

    for one in method or METHODS:
        methods.entry(one)
    config = read_config(None, {"data": name}, [*PUBLISHED, *(keys or [])])
    benchmark = benchmarks.make(config.data)
    splits = stream_of(benchmark, kind)
    if bool(original) != bool(oracle):
        raise ConfigError(
            "give both --original and --oracle (a model retrained without any of the requests), or neither"
        )
    if not original:
        check_learned(splits, benchmark.split())
    first, *retrained = (
        (original, *(oracle or ()))
        if original
        else map(str, trained(config.data, work / name / "models", TRAINING))
    )
    stream = requests.Stream(
        f"{name} {kind}",
        splits,
        kind == "sust",
        result_of(first, config.template),
        tuple(result_of(one, config.template) for one in retrained),
        config.settings,
        not all_epochs,
    )
    streams = [(one, requests.run(stream, one, work / name / kind)) for one in method or METHODS]
    typer.echo(requests.page(stream, streams, out))


def stream_of(benchmark: Any, kind: str) -> Any:
    """The requests of a benchmark. Raises ConfigError for one that has none."""
    if not hasattr(benchmark, "requests"):
        raise ConfigError("this benchmark has no streams of requests: there are articles and muse")
    return benchmark.requests(kind)


def check_learned(requests: Sequence[Split], whole: Split) -> None:
    """Raise ConfigError where a model that learns ``whole`` would not learn every request."""
    from unremember.data.split import identity

    learned = {identity(row) for row in whole["forget"].rows}
    for request in requests:
        if any(identity(row) not in learned for row in request["forget"].rows):
            raise ConfigError(
                f"{whole.name} does not hold the request {request.name}: join the files of the stream as data.forget=a+b, "
                "or give --original and --oracle"
            )
