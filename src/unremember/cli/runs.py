"""What the commands do: run folders, models on disk, tables and reports."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from unremember import api
from unremember.audits.measurement import Measurement
from unremember.cli.config import RunConfig, put, read_config
from unremember.data.split import Split
from unremember.data.text import Template
from unremember.engine.checkpoint import write_text
from unremember.errors import Collapsed, ConfigError
from unremember.models.digest import weights_digest
from unremember.models.load import load_model, load_tokenizer, save_model
from unremember.models.presets import fresh, small_llama
from unremember.models.tokenizer import train_tokenizer
from unremember.registry import benchmarks, methods
from unremember.report.comparison import Artefact, Comparison
from unremember.report.page import write_report
from unremember.report.table import rich_table

console = Console()


def split_of(data: Any) -> Split:
    return benchmarks.make(data).split()


def data_spec(name: str, keys: Sequence[str]) -> tuple[Any, list[str]]:
    """The data with its ``data.…=`` keys, and the keys that are left."""
    tree: dict[str, Any] = {"data": name}
    mine = [key for key in keys if key.startswith("data.")]
    for key in mine:
        path, _, value = key.partition("=")
        put(tree, path.split("."), yaml.safe_load(value))
    return tree["data"], [key for key in keys if key not in mine]


def model_folder(name: str) -> str:
    """A run's ``model/`` where ``name`` is a run folder, else the name itself."""
    inner = Path(name) / "model"
    return str(inner) if inner.is_dir() else name


def begin(out: Path, config: RunConfig, kind: str) -> bool:
    """Open a run folder; True where the same run is finished there already."""
    wanted = {"kind": kind, "config": json.loads(config.model_dump_json())}
    file = out / "run.json"
    if file.exists():
        there = json.loads(file.read_text())
        if {k: there.get(k) for k in wanted} != wanted:
            raise ConfigError(f"{out} holds another run (see its run.json): choose another --out, or delete the folder")
        return (out / "model").is_dir() and "digest" in there
    write_text(file, json.dumps({**wanted, "versions": api.versions()}, indent=2))
    return False


def finish(out: Path, result: api.Result, tokenizer: Any, split: Split, seconds: float) -> None:
    save_model(result.model, tokenizer, out / "model")
    there = json.loads((out / "run.json").read_text())
    there |= {"digest": result.digest, "data": split.digest, "seconds": round(seconds, 1)}
    write_text(out / "run.json", json.dumps(there, indent=2))


def template_of(config: RunConfig) -> Template:
    return Template(config.template) if config.template else Template()


def train_run(config: RunConfig, out: Path) -> Path:
    """Train from scratch or from a model; returns the run folder."""
    if begin(out, config, "train"):
        console.print(f"{out} is finished already")
        return out
    split = split_of(config.data)
    if config.model:
        folder = model_folder(config.model)
        model, tokenizer = load_model(folder), load_tokenizer(folder)
    else:
        texts = [text for role in split.roles.values() for row in role.rows for text in (row.get("question"), row.get("answer")) if text]
        tokenizer = train_tokenizer(texts, 4096)
        model = small_llama(len(tokenizer), seed=config.settings.get("seed", 0))
    began = time.monotonic()
    result = api.train(model, split, tokenizer=tokenizer, without=config.without, template=template_of(config), folder=out, **config.settings)
    finish(out, result, tokenizer, split, time.monotonic() - began)
    return out


def forget_run(config: RunConfig, out: Path) -> Path:
    """Forget with a method; returns the run folder."""
    if not config.model:
        raise ConfigError("forget needs --model: a model folder, a run folder or a hub name")
    name = config.method if isinstance(config.method, str) else config.method["name"]
    entry = methods.entry(name)
    if begin(out, config, "forget"):
        console.print(f"{out} is finished already")
        return out
    split = split_of(config.data)
    folder = model_folder(config.model)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    if entry.facts.get("fresh"):
        model, split = fresh(model.config, config.settings.get("seed", 0)), api.learned(split, without=("forget",))
    began = time.monotonic()
    result = api.forget(model, split, config.method, tokenizer=tokenizer, blend=config.blend, sampling=config.sampling,
                        selection=config.selection, template=template_of(config), folder=out, **config.settings)  # fmt: skip
    finish(out, result, tokenizer, split, time.monotonic() - began)
    return out


def result_of(name: str) -> api.Result:
    folder = model_folder(name)
    model = load_model(folder)
    return api.Result(model, api.task_for(model, load_tokenizer(folder)), weights_digest(model))


def audit_run(model: str, data: str, oracles: Sequence[str], original: str, audits: Sequence[str], keys: Sequence[str]) -> list[Measurement]:
    """Audit one model; observations are kept beside it, and ``measurements.json`` is written into its run folder."""
    spec, rest = data_spec(data, keys)
    if rest:
        raise ConfigError(f"audit takes data.…= keys only, not {rest[0]!r}")
    run = Path(model) if (Path(model) / "run.json").exists() else None
    found = api.audit(result_of(model), split_of(spec), oracle=[result_of(o) for o in oracles],
                      original=result_of(original) if original else None, audits=audits,
                      store=run / "observations" if run else None)  # fmt: skip
    if run:
        write_text(run / "measurements.json", json.dumps([m.row() for m in found], indent=2))
    return found


def show(found: Sequence[Measurement], as_json: bool, model: Path) -> None:
    if as_json:
        print(json.dumps([m.row() for m in found], indent=2))
        return
    comparison = Comparison(f"audit of {model}", (Artefact(model.name, "unlearned", "", found[0].artefact, tuple(m.row() for m in found)),))
    console.print(rich_table(comparison))
    for note in dict.fromkeys(m.note or m.reason for m in found if m.note or m.reason):
        console.print(f"[dim]{note}[/dim]")


def compare_run(models: Sequence[str], data: Any, oracles: Sequence[str], original: str, out: Path, as_json: bool,
                keys: Sequence[str], title: str = "") -> Comparison:  # fmt: skip
    """Audit models and controls over one observation store, print the table, write the report."""
    spec, rest = data_spec(data, keys) if isinstance(data, str) else (data, list(keys))
    if rest:
        raise ConfigError(f"compare takes data.…= keys only, not {rest[0]!r}")
    split, store = split_of(spec), out / "observations"
    first = result_of(original) if original else None
    retrained = [result_of(o) for o in oracles]
    kinds = [("original", original)] * bool(original) + [("oracle", o) for o in oracles] + [("unlearned", m) for m in models]
    artefacts = []
    for kind, name in kinds:
        result = first if kind == "original" and first else result_of(name)
        found = api.audit(result, split, oracle=retrained, original=first, store=store)
        artefacts.append(Artefact(Path(name).name, kind, method_of(name), result.digest, tuple(m.row() for m in found)))
    facts = {"data": f"{split.name} · {split.digest[:16]}", **api.versions()}
    comparison = Comparison(title or f"Forgetting on {split.name}", tuple(artefacts), facts)
    comparison.save(out / "comparison.json")
    page = write_report(comparison, out / "report.html")
    if as_json:
        print(comparison.text())
    else:
        console.print(rich_table(comparison))
        console.print(f"report: {page}")
    return comparison


def method_of(name: str) -> str:
    file = Path(name) / "run.json"
    config = json.loads(file.read_text())["config"] if file.exists() else {}
    method = config.get("method", "")
    return method if isinstance(method, str) else method["name"]


def benchmark_run(name: str, original: str, oracles: Sequence[str], chosen: Sequence[str], out: Path, as_json: bool, keys: Sequence[str]) -> None:
    """Run methods on a benchmark's data from one original, then compare. A collapse is a recorded result."""
    if not original:
        raise ConfigError(f"benchmark {name} needs --original, the model to forget from (and --oracle for verdicts)")
    spec, rest = data_spec(name, keys)
    done = []
    for method in chosen:
        folder = out / method
        try:
            done.append(str(forget_run(read_config(None, {"model": original, "data": spec, "method": method}, rest), folder)))
        except Collapsed as error:
            console.print(f"{method}: collapsed ({error})")
            write_text(folder / "collapsed.json", json.dumps({"method": method, "reason": str(error)}))
    compare_run(done, spec, oracles, original, out, as_json, [])


DEMO = {"epochs": 24, "lr": 2e-3, "batch_size": 32, "warmup": 1.0}
DEMO_METHODS = {
    "gradient_difference": {"lr": 3e-4, "epochs": 6},
    "npo": {"lr": 5e-4, "epochs": 8},
    "simnpo": {"lr": 5e-4, "epochs": 8},
}


def demo_run(out: Path, people: int) -> None:
    """The main job on the generated world; every finished part is reused by the next run."""
    began = time.monotonic()
    data = {"name": "people", "count": people}
    train_run(RunConfig(data=data, settings=DEMO), out / "original")
    train_run(RunConfig(data=data, without=["forget"], settings=DEMO), out / "oracle")
    for method, settings in DEMO_METHODS.items():
        config = RunConfig(model=str(out / "original"), data=data, method=method, settings={"batch_size": 16, **settings})
        forget_run(config, out / method)
    folders = [str(out / method) for method in DEMO_METHODS]
    compare_run(folders, data, [str(out / "oracle")], str(out / "original"), out, False, [], f"Forgetting {people // 10} of {people} people")
    console.print(f"done in {time.monotonic() - began:.0f} s")


