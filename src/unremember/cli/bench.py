"""``bench``: methods at matched forgetting, the four seams crossed, what hardness foretells, what metrics are worth."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from unremember.cli.bench_requests import bench_requests
from unremember.errors import ConfigError

ARENAS = Annotated[
    list[str], typer.Argument(metavar="ARENA...", help="people-40, people-100 … (any size from 20), or tofu.")
]
WORLD = Annotated[str, typer.Argument(metavar="WORLD", help="people-40 (any size from 20).")]
OUT = Annotated[Path, typer.Option("--out", "-o", help="Folder of the page and its figures.")]
WORK = Annotated[
    Path,
    typer.Option("--work", "-w", help="Folder of models and finished cells; what is there is not run again."),
]
TOFU = Annotated[
    str, typer.Option("--tofu", help="For the arena tofu: TOFU's folder, or its name on the hub.")
]
ORIGINAL = Annotated[
    str, typer.Option("--original", help="For the arena tofu: the model that knows the forget set.")
]
ORACLE = Annotated[
    list[str] | None,
    typer.Option(
        "--oracle", help="For the arena tofu: one retrained without it; give two, or a second is trained."
    ),
]
METHOD = Annotated[
    list[str] | None, typer.Option("--method", help="Only these methods; may be given several times.")
]
TABLE = Annotated[
    Path | None, typer.Option("--table", help="Also write the calibration that `plan` reads to this file.")
]
TRAINING = {"epochs": 12, "lr": 2e-3, "batch_size": 32}
RETRAINING = {"method": "retrain", "epochs": 19, "lr": 1e-3, "batch_size": 16, "seed": 1}
"""TOFU's second oracle, where only one is given."""
LEAD = (
    "Each method runs from the original until the forget set's answers are no more likely than a tenth of the way from the oracles' level to the "
    "original's; figures are then read at *matched forgetting*. Its learning rate is the best of the arena's on an "
    "exploratory seed; the figures are the mean (least … greatest) of three other seeds. "
    "`retain_descent` is the control: plain training on the retain set for the median number of steps."
)

GIVEN = "`altpo` is given answers that the original invents, `whp` a model that learned the forget set for ten more epochs, at a strength of 20."
REINFORCING: dict[str, Any] = {"epochs": 10, "lr": 1e-3, "batch_size": 16}


def add_bench(app: typer.Typer) -> None:
    bench = typer.Typer(
        no_args_is_help=True, help="Compare methods at matched forgetting: tables and figures, resumable."
    )
    bench.command("methods")(bench_methods)
    bench.command("seams")(bench_seams)
    bench.command("hardness")(bench_hardness)
    bench.command("requests")(bench_requests)
    bench.command("metrics")(bench_metrics)
    app.add_typer(bench, name="bench")


def bench_methods(
    arenas: ARENAS,
    out: OUT = Path("docs/results"),
    work: WORK = Path("runs/bench"),
    method: METHOD = None,
    tofu: TOFU = "locuslab/TOFU",
    original: ORIGINAL = "",
    oracle: ORACLE = None,
) -> None:
    """Every method at matched forgetting, beside original, oracles and retain descent.

    unremember bench methods people-40 people-100

    unremember bench methods tofu --tofu TOFU --original ORIGINAL --oracle RETAIN90
    """
    from unremember.experiments import compare

    recipes = {name: (name, {}) for name in method} if method else compare.every_method()
    made = [arena(name, work, tofu, original, oracle or []) for name in arenas]
    made = [dataclasses.replace(one, settings=made_for(one, work / one.name, list(recipes))) for one in made]
    parts = compare.tables(made, recipes, work, out / "methods.md")
    if not method:
        compare.spotlights(parts[0][1], out / "spotlight")
    typer.echo(compare.page("Methods", f"{LEAD} {GIVEN}", parts, out / "methods.md"))


def bench_seams(
    arenas: ARENAS,
    loss: Annotated[str, typer.Option(help="The method whose loss is crossed.")] = "npo",
    out: OUT = Path("docs/results"),
    work: WORK = Path("runs/bench"),
    tofu: TOFU = "locuslab/TOFU",
    original: ORIGINAL = "",
    oracle: ORACLE = None,
) -> None:
    """One loss with every blend, sampling and selection, at matched forgetting.

    unremember bench seams people-40 --loss npo
    """
    from unremember.experiments import compare
    from unremember.experiments.table import crossing

    made = [arena(name, work, tofu, original, oracle or []) for name in arenas]
    parts = compare.tables(made, compare.crossed(loss), work, out / "seams.md", compare.paired)
    lead = f"The loss of `{loss}` with every blend · sampling · selection. {LEAD} The rate of a blend and selection is chosen with paired rows."
    typer.echo(
        compare.page("The four seams crossed", lead, parts, out / "seams.md", crossing, compare.margins)
    )


def bench_hardness(
    world: WORLD, out: OUT = Path("docs/results"), work: WORK = Path("runs/bench"), table: TABLE = None
) -> None:
    """How well the hardness that `plan` prints ranks what forgetting really costs.

    unremember bench hardness people-40
    """
    from unremember.cli.folder import result_of, split_of
    from unremember.experiments import hardness
    from unremember.files import write_text

    data = people(world)
    original = result_of(str(trained(data, work / world)[0]))
    found = hardness.calibrate(original, split_of(data), work / world / "hardness")
    made = hardness.page(world, original, found, out)
    if table:
        write_text(table, json.dumps(dataclasses.asdict(made), indent=1) + "\n")
    typer.echo(out / "hardness.md")


def bench_metrics(
    world: WORLD,
    models: Annotated[int, typer.Option(help="Models of each pool: a multiple of 3, from 6 to 30.")] = 12,
    method: METHOD = None,
    out: OUT = Path("docs/results"),
    work: WORK = Path("runs/bench"),
) -> None:
    """What every metric is worth: does it tell models that know from those that do not, and does it hold under attack?

    unremember bench metrics people-40

    unremember bench metrics people-40 --models 30
    """
    from unremember.experiments import metrics, metrics_table, pools
    from unremember.registry import methods

    people(world)
    pools.members(models)
    chosen = [methods.entry(name).name for name in method or metrics.METHODS]
    made = arena(world, work, "", "", [])
    found = metrics.measure(made, models, work / world / "metrics", chosen)
    typer.echo(metrics_table.page(made, found, out))


def people(name: str) -> dict[str, Any]:
    """The data of a world of people by its name."""
    kind, _, count = name.partition("-")
    if kind != "people" or not count.isdigit():
        raise ConfigError(f"no arena {name!r}: there are people-<count> (people-40) and tofu")
    return {"name": "people", "count": int(count)}


def arena(name: str, work: Path, tofu: str, original: str, oracles: Sequence[str]) -> Any:
    """An arena by name; the models of a world of people are trained where they are not there yet."""
    from unremember.cli.folder import result_of, split_of
    from unremember.experiments.cells import Arena

    if name == "tofu":
        if not (original and oracles):
            raise ConfigError(
                "the arena tofu needs --original and --oracle (a model retrained without the forget set)"
            )
        data = {"name": "tofu", "path": tofu}
        if len(oracles) == 1:
            oracles = [*oracles, str(second_oracle(data, original, work / name / "oracle-1"))]
        return Arena(
            name,
            split_of(data),
            result_of(original),
            tuple(result_of(o) for o in oracles),
            16,
            80,
            10,
            (3e-4, 1e-3),
        )
    data = people(name)
    folders = trained(data, work / name)
    first, *retrained = [result_of(str(folder)) for folder in folders]
    return Arena(name, split_of(data), first, tuple(retrained), 16, 80, 4, (3e-4, 1e-3))


def second_oracle(data: Any, original: str, folder: Path) -> Path:
    """The run folder of an oracle with the original's architecture and another seed's weights."""
    from unremember.cli.config import checked
    from unremember.cli.forget import forget_run

    with one_thread():
        forget_run(checked({"data": data, "model": original, **RETRAINING}), folder)
    return folder


def made_for(arena: Any, folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the methods of these names need and an arena's original makes: made where it is not there yet."""
    made: dict[str, dict[str, Any]] = {}
    if "altpo" in names:
        made["altpo"] = {"alternates": str(invented(arena, folder))}
    if "whp" in names:
        made["whp"] = {"reinforced": str(reinforced(arena, folder)), "strength": 20.0}
    return made


def reinforced(arena: Any, folder: Path) -> Path:
    """The model folder of an arena's original after further learning of the forget set alone."""
    from unremember import api
    from unremember.models.load import save_model

    original = arena.original
    home = folder / f"reinforced-{original.digest[:12]}"
    if not (home / "model").is_dir():
        with one_thread():
            made = api.train(
                copy.deepcopy(original.model),
                arena.split,
                tokenizer=original.task.tokenizer,
                only=["forget"],
                template=original.task.template,
                folder=home,
                **REINFORCING,
            )
        save_model(made.model, original.task.tokenizer, home / "model")
    return home / "model"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch has one thread, as the cells do: how many there are changes a model's last bits, and so its digest."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def invented(arena: Any, folder: Path) -> Path:
    """The file of other answers that an arena's original invents for the forget questions."""
    from unremember.observe.inventing import invent, write_invented

    original, role = arena.original, arena.split["forget"]
    file = folder / f"alternates-{original.digest[:12]}.jsonl"
    if not file.exists():
        write_invented(
            file, role, invent(original.model, original.task.tokenizer, role, original.task.template)
        )
    return file


def trained(data: Any, folder: Path, training: Mapping[str, Any] = TRAINING) -> list[Path]:
    """Run folders of the original and two oracles."""
    from unremember.cli.config import checked
    from unremember.cli.train import train_run

    runs: dict[str, dict[str, Any]] = {
        "original": {},
        "oracle-0": {"without": ["forget"]},
        "oracle-1": {"without": ["forget"], "seed": 1},
    }
    with one_thread():
        for name, more in runs.items():
            train_run(checked({"data": data, **training, **more}), folder / name)
    return [folder / name for name in runs]
