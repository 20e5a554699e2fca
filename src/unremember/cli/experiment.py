"""``experiment``: methods at matched forgetting, seams crossed, hardness, metrics, streams of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from unremember.cli.options import KeysArgument, OracleOption, OriginalOption

ArenasArgument = Annotated[
    list[str], typer.Argument(metavar="ARENA...", help="people-40, people-100 … (any size from 20), or tofu.")
]
WorldArgument = Annotated[str, typer.Argument(metavar="WORLD", help="people-40 (any size from 20).")]
PageFolderOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of the page and its figures.")]
WorkOption = Annotated[
    Path, typer.Option("--work", "-w", help="Folder of models and finished cells, which are used again.")
]
TofuOption = Annotated[
    str, typer.Option("--tofu", help="For the arena tofu: TOFU's folder, or its name on the hub.")
]
TofuOriginalOption = Annotated[
    str, typer.Option("--original", help="For the arena tofu: the model that knows the forget set.")
]
TofuOracleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--oracle", help="For the arena tofu: a model retrained without it. Give two, or a second is trained."
    ),
]
MethodsOption = Annotated[
    list[str] | None, typer.Option("--method", help="Only this method; may be given several times.")
]
_PAGES, _WORK = Path("docs/results"), Path("runs/experiment")

experiment_app = typer.Typer(
    no_args_is_help=True,
    help="Compare methods at matched forgetting, and measure what plans and metrics are worth. Resumable.",
)


@experiment_app.command("methods")
def methods_command(
    arenas: ArenasArgument,
    out: PageFolderOption = _PAGES,
    work: WorkOption = _WORK,
    method: MethodsOption = None,
    tofu: TofuOption = "locuslab/TOFU",
    original: TofuOriginalOption = "",
    oracle: TofuOracleOption = None,
) -> None:
    """Compare methods at matched forgetting, beside the original, the oracles and retain descent.

    unremember experiment methods people-40 people-100

    unremember experiment methods tofu --tofu TOFU --original ORIGINAL --oracle RETAIN90
    """
    from unremember.experiments.arenas import ArenaSource
    from unremember.experiments.compare import methods_experiment

    source = ArenaSource(work, tofu, original, oracle or [])
    typer.echo(methods_experiment(arenas, source, out, method or []))


@experiment_app.command("seams")
def seams_command(
    arenas: ArenasArgument,
    loss: Annotated[str, typer.Option(help="The method whose loss is crossed.")] = "npo",
    out: PageFolderOption = _PAGES,
    work: WorkOption = _WORK,
    tofu: TofuOption = "locuslab/TOFU",
    original: TofuOriginalOption = "",
    oracle: TofuOracleOption = None,
) -> None:
    """Cross one loss with every blend, sampling and selection, at matched forgetting.

    unremember experiment seams people-40 --loss npo
    """
    from unremember.experiments.arenas import ArenaSource
    from unremember.experiments.compare import seams_experiment

    typer.echo(seams_experiment(arenas, ArenaSource(work, tofu, original, oracle or []), out, loss))


@experiment_app.command("hardness")
def hardness_command(
    world: WorldArgument,
    out: PageFolderOption = _PAGES,
    work: WorkOption = _WORK,
    table: Annotated[
        Path | None,
        typer.Option("--table", help="Also write the calibration that `plan` reads to this file."),
    ] = None,
) -> None:
    """Measure how well the hardness that `plan` prints ranks the real cost of forgetting.

    unremember experiment hardness people-40
    """
    from unremember.experiments.hardness import hardness_experiment

    typer.echo(hardness_experiment(world, out, work, table))


@experiment_app.command("metrics")
def metrics_command(
    world: WorldArgument,
    models: Annotated[int, typer.Option(help="Models of each pool: a multiple of 3, from 6 to 30.")] = 12,
    method: MethodsOption = None,
    out: PageFolderOption = _PAGES,
    work: WorkOption = _WORK,
) -> None:
    """Measure what every metric is worth: can it tell who knows, and does it hold under attack?

    unremember experiment metrics people-40

    unremember experiment metrics people-40 --models 30
    """
    from unremember.experiments.metrics import UNLEARNING_METHODS
    from unremember.experiments.metrics_table import metrics_experiment

    typer.echo(metrics_experiment(world, out, work, models, method or UNLEARNING_METHODS))


@experiment_app.command("requests")
def requests_command(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK", help="articles, or muse.")],
    kind: Annotated[
        Literal["sust", "scal"], typer.Option(help="sust: one after another; scal: ever larger.")
    ] = "sust",
    method: Annotated[list[str] | None, typer.Option("--method", help="May be given several times.")] = None,
    original: OriginalOption = "",
    oracle: OracleOption = None,
    all_epochs: Annotated[
        bool, typer.Option("--all-epochs", help="Do not stop where the oracle's level is reached.")
    ] = False,
    out: PageFolderOption = _PAGES,
    work: WorkOption = _WORK,
    keys: KeysArgument = None,
) -> None:
    """Run a stream of requests, one after another or ever larger, and measure each one after every later one.

    unremember experiment requests articles data.count=40 --method npo lr=5e-4 batch_size=16

    unremember experiment requests muse --kind scal --original MODEL --oracle RETRAINED data.path=MUSE
    """
    from unremember.experiments.requests import (
        PUBLISHED_SETTINGS,
        REQUEST_METHODS,
        make_stream,
        run_streams,
    )
    from unremember.experiments.requests_page import requests_page
    from unremember.registry import methods
    from unremember.runs.config import read_config

    names = method or REQUEST_METHODS
    for method_name in names:
        methods.entry(method_name)
    config = read_config(None, {"data": name}, [*PUBLISHED_SETTINGS, *(keys or [])])
    stream = make_stream(config, kind, work, original=original, oracles=oracle or [], stops=not all_epochs)
    typer.echo(requests_page(stream, run_streams(stream, names, work / name / kind), out))
