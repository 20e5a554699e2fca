"""What the shell sees: every command's flags and examples. What a command does is in the module of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL = Annotated[str, typer.Option("--model", "-m", help="Model folder, run folder or hub name.")]
DATA = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        help="Benchmark that gives the data: people, tofu, muse, wmdp … (data.path=… as key=value).",
    ),
]
OUT = Annotated[Path, typer.Option("--out", "-o", help="Run folder; an interrupted run there is resumed.")]
CONFIG = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file with the same names as the flags.")
]
KEYS = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings, e.g. lr=1e-4 epochs=5 method.beta=0.2"),
]
MODELS = Annotated[
    list[str],
    typer.Argument(metavar="MODEL... [KEY=VALUE]...", help="Folders of models or runs, then data.…= keys."),
]
ORACLE = Annotated[
    list[str] | None,
    typer.Option("--oracle", help="Model retrained without the forget set; may be given twice."),
]
ORIGINAL = Annotated[str, typer.Option("--original", help="The model before forgetting.")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def train(
    out: OUT,
    data: DATA = "",
    model: MODEL = "",
    config: CONFIG = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Roles left out; `--without forget` makes the oracle.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Roles learned, and no other; `--only forget` reinforces for whp."),
    ] = None,
    keys: KEYS = None,
) -> None:
    """Train a model on a benchmark's data (from scratch, or from --model).

    unremember train -o runs/original -d people data.count=100 epochs=20 lr=2e-3

    unremember train -o runs/oracle --without forget -d people data.count=100 epochs=20 lr=2e-3
    """
    from unremember.cli.config import read_config
    from unremember.cli.train import train_run

    train_run(
        read_config(config, {"model": model, "data": data, "without": without, "only": only}, keys or []), out
    )


def forget(
    out: OUT,
    model: MODEL = "",
    data: DATA = "",
    config: CONFIG = None,
    method: Annotated[str, typer.Option(help="See `unremember methods`.")] = "",
    blend: Annotated[str, typer.Option(help="See `unremember blends`.")] = "",
    sampling: Annotated[str, typer.Option(help="See `unremember samplings`.")] = "",
    selection: Annotated[str, typer.Option(help="See `unremember selections`.")] = "",
    retain: Annotated[
        str, typer.Option(help="Loss of the retain term, such as kl; see `unremember losses`.")
    ] = "",
    keys: KEYS = None,
) -> None:
    """Forget the role `forget` of a benchmark's data.

    unremember forget -m runs/original -d people --method npo --selection lora -o runs/npo lr=1e-3

    unremember forget -c run.yaml -o runs/npo method.beta=0.2
    """
    from unremember.cli.config import read_config
    from unremember.cli.forget import forget_run

    flags = {
        "model": model,
        "data": data,
        "method": method,
        "blend": blend,
        "sampling": sampling,
        "selection": selection,
        "retain": retain,
    }
    forget_run(read_config(config, flags, keys or []), out)


def plan(
    model: MODEL = "",
    data: DATA = "",
    config: CONFIG = None,
    as_json: JSON = False,
    method: Annotated[str, typer.Option(help="See `unremember methods`.")] = "",
    blend: Annotated[str, typer.Option(help="See `unremember blends`.")] = "",
    sampling: Annotated[str, typer.Option(help="See `unremember samplings`.")] = "",
    selection: Annotated[str, typer.Option(help="See `unremember selections`.")] = "",
    retain: Annotated[
        str, typer.Option(help="Loss of the retain term, such as kl; see `unremember losses`.")
    ] = "",
    keys: KEYS = None,
) -> None:
    """Before any training: what a method lacks, how hard the request is, whether it looks hostile, what it costs here.

    unremember plan -m runs/original -d people --method npo epochs=8

    unremember plan -m MODEL -d tofu data.path=TOFU --method gu --json
    """
    from unremember.cli.config import read_config
    from unremember.cli.plan import plan_run

    flags = {
        "model": model,
        "data": data,
        "method": method,
        "blend": blend,
        "sampling": sampling,
        "selection": selection,
        "retain": retain,
    }
    plan_run(read_config(config, flags, keys or []), as_json)


def alternates(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, a JSON line a row.")],
    model: MODEL,
    data: DATA = "people",
    count: Annotated[int, typer.Option(min=1, help="Answers sampled for each row.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    keys: KEYS = None,
) -> None:
    """Let a model invent other answers to the forget questions, for the method altpo.

    unremember alternates -m MODEL -d tofu data.path=TOFU template=chat -o runs/alternates.jsonl

    unremember forget -m MODEL -d tofu data.path=TOFU --method altpo method.alternates=runs/alternates.jsonl -o runs/altpo
    """
    from unremember.cli.alternates import alternates_run

    alternates_run(model, data, out, count, seed, keys or [])


def audit(
    model: MODEL,
    data: DATA = "people",
    oracle: ORACLE = None,
    original: ORIGINAL = "",
    as_json: JSON = False,
    audits: Annotated[
        list[str] | None, typer.Option("--audit", help="Only these; see `unremember audits`.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task of lm-eval, such as wmdp_bio or mmlu; may be given several times."),
    ] = None,
    keys: KEYS = None,
) -> None:
    """Measure a model beside its controls.

    unremember audit -m runs/npo --oracle runs/oracle --original runs/original -d people

    unremember audit -m runs/rmu --original runs/original -d people --task mmlu lm_eval.limit=50

    unremember audit -m runs/npo --original runs/original -d people --audit fluency fluency.judge=runs/original/model
    """
    from unremember.cli.audit import audit_run

    audit_run(model, data, oracle or [], original, audits or [], task or [], as_json, keys or [])


def attack(
    model: Annotated[str, typer.Argument(help="Model folder or run folder.")],
    name: Annotated[str, typer.Option("--attack", help="See `unremember attacks`.")] = "relearning",
    data: DATA = "people",
    oracle: ORACLE = None,
    original: ORIGINAL = "",
    as_json: JSON = False,
    audits: Annotated[
        list[str] | None,
        typer.Option("--audit", help="What is measured at each point; see `unremember audits`."),
    ] = None,
    keys: KEYS = None,
) -> None:
    """Try to bring the forgotten back, beside oracle and original attacked alike; the model itself is not touched.

    unremember attack runs/npo --attack relearning --oracle runs/oracle --original runs/original -d people attack.steps=100 attack.lr=1e-3

    unremember attack runs/npo --attack quantisation --oracle runs/oracle --original runs/original -d people attack.bits=[8,4]
    """
    from unremember.cli.attack import attack_run

    attack_run(model, name, data, oracle or [], original, audits or [], as_json, keys or [])


def sweep(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...",
            help="A YAML file as of `forget -c`, settings, and "
            "what is swept: sweep.lr=[1e-4,1e-3], sweep.method=\\[npo,simnpo].",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder of the points and the page; what is finished there is not run again."
        ),
    ],
    oracle: ORACLE = None,
    original: Annotated[
        str, typer.Option("--original", help="The model before forgetting, if it is not the configuration's.")
    ] = "",
    floor: Annotated[
        float, typer.Option(min=0, help="Share of the original's utility that a recommended point keeps.")
    ] = 0.9,
    search: Annotated[
        int,
        typer.Option(
            min=0,
            help="Search so many points with Optuna, in ranges (sweep.lr=1e-5..1e-3) as in lists; "
            "else all points are crossed.",
        ),
    ] = 0,
    matched: Annotated[
        bool,
        typer.Option("--matched", help="End each point at matched forgetting (its schedule is constant)."),
    ] = False,
    every: Annotated[
        int, typer.Option(min=0, help="With --matched: steps between two looks (0: an epoch).")
    ] = 0,
    cluster: Annotated[
        str,
        typer.Option(
            help="Address of a Ray cluster, host:port or auto; else Ray starts on this machine's cores."
        ),
    ] = "",
    as_json: JSON = False,
) -> None:
    """Many configurations: forget with each, measure all beside the same controls, recommend one.

    unremember sweep run.yaml -o runs/sweep --oracle runs/oracle sweep.lr=[1e-4,3e-4,1e-3] sweep.method=\\[npo,simnpo]

    unremember sweep run.yaml -o runs/search --oracle runs/oracle --search 30 sweep.lr=1e-5..1e-3 sweep.method.beta=0.05..0.5

    unremember forget -c runs/sweep/best.yaml -o runs/best
    """
    from unremember.cli.sweep import sweep_run

    sweep_run(words, out, oracle or [], original, floor, search, matched, every, cluster, as_json)


def push(
    model: Annotated[str, typer.Argument(help="Run folder, or a model folder with its card.")],
    name: Annotated[str, typer.Argument(help="Name on the hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
) -> None:
    """Upload a forgotten model with its card: what was forgotten (by hash), how, and how it was measured.

    unremember push runs/npo owner/name --private
    """
    from unremember.cli.push import push_run

    push_run(model, name, private)


def compare(
    models: MODELS,
    data: DATA = "people",
    oracle: ORACLE = None,
    original: ORIGINAL = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")] = Path("runs/compare"),
    as_json: JSON = False,
) -> None:
    """Audit several models beside original and oracle, and write a report.

    unremember compare runs/npo runs/simnpo --oracle runs/oracle --original runs/original -d people
    """
    from unremember.cli.compare import compare_run

    keys = [item for item in models if "=" in item]
    compare_run([m for m in models if m not in keys], data, oracle or [], original, out, as_json, keys)


def report(folder: Annotated[Path, typer.Argument(help="Folder of a comparison.")]) -> None:
    """Write report.html again from a comparison's figures.

    unremember report runs/compare
    """
    from unremember.report.comparison import Comparison
    from unremember.report.page import write_report

    typer.echo(write_report(Comparison.load(folder / "comparison.json"), folder / "report.html"))


def benchmark(
    name: Annotated[str, typer.Argument(help="See `unremember benchmarks`.")],
    from_log: Annotated[
        Path | None, typer.Option(help="A published TOFU evaluation log: figures without a model.")
    ] = None,
    oracle_log: Annotated[
        Path | None, typer.Option(help="The retrained model's log, for forget quality.")
    ] = None,
    original: ORIGINAL = "",
    oracle: ORACLE = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Methods to run; may be given several times.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the runs and the report.")] = Path(
        "runs/benchmark"
    ),
    as_json: JSON = False,
    keys: KEYS = None,
) -> None:
    """Run methods on a benchmark and compare them, or check a published log.

    unremember benchmark tofu data.path=TOFU --original ORIGINAL --oracle RETAIN90 --method npo --method rmu lr=1e-4

    unremember benchmark tofu --from-log eval.json --oracle-log retain.json --json
    """
    from unremember.cli import benchmark

    if from_log is not None or oracle_log is not None:
        benchmark.log_run(name, from_log, oracle_log, as_json)
    else:
        benchmark.benchmark_run(
            name, original, oracle or [], method or benchmark.METHODS, out, as_json, keys or []
        )


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the demo.")] = Path("runs/demo"),
    people: Annotated[int, typer.Option(help="People in the world.")] = 100,
) -> None:
    """The main job on a generated world: train, retrain, forget three ways, audit, report. Run again, it reuses what is there.

    unremember demo

    unremember demo --people 40 -o runs/small
    """
    from unremember.cli.demo import demo_run

    demo_run(out, people)


def add_commands(app: typer.Typer) -> None:
    for command in (
        demo,
        train,
        plan,
        alternates,
        forget,
        audit,
        attack,
        compare,
        report,
        benchmark,
        sweep,
        push,
    ):
        app.command()(command)
