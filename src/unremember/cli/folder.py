"""A run is a folder: run.json, log.jsonl, checkpoint/, model/ and, once audited, observations/, measurements.json and report.html."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unremember import api
from unremember.cli.config import RunConfig
from unremember.data.split import Split
from unremember.errors import ConfigError, ModelError
from unremember.files import write_text
from unremember.models.digest import weights_digest
from unremember.models.load import load_model, load_tokenizer, model_in, quiet, save_model
from unremember.processes import main, wait
from unremember.registry import benchmarks
from unremember.report.model_card import model_card
from unremember.tasks.text import Template


def notice(line: str) -> None:
    """A remark beside the result: stdout is for what was asked."""
    print(line, file=sys.stderr)


def split_of(data: Any) -> Split:
    return benchmarks.make(data).split()


def template_of(prompt: str) -> Template:
    """The template of a configuration. Raises ConfigError where it asks for more than the question."""
    try:
        prompt.format(question="")
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"template {prompt!r}: {{question}} is the only field there is; a brace itself is doubled"
        ) from error
    return Template(prompt) if prompt else Template()


def read_run(folder: str | Path) -> dict[str, Any]:
    """The run.json of a run folder; empty where there is none."""
    file = Path(folder) / "run.json"
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): delete that folder or choose another") from error


def model_folder(name: str) -> str:
    """A run's ``model/`` where ``name`` is a run folder, else the name itself. Raises ModelError for a run that has none yet."""
    found = model_in(name)
    if found == Path(name) and read_run(name):
        raise ModelError(f"the run {name} is not finished: its command, given again, carries on")
    return name if found == Path(name) else str(found)


def result_of(name: str, template: str = "") -> api.Result:
    """The model of a run or model folder, asked with ``template`` or the one that its run was made with."""
    folder, made = model_folder(name), read_run(name).get("config", {})
    model = load_model(folder)
    task = api.task_for(model, load_tokenizer(folder), template_of(template or made.get("template", "")))
    return api.Result(model, task, weights_digest(model))


def finished(out: Path, kind: str, config: RunConfig) -> bool:
    """Whether this very run is finished there already; keys that an older version did not write have their defaults.

    Raises ConfigError where the folder holds another run.
    """
    there = read_run(out)
    if there and {
        "kind": there.get("kind"),
        "config": {**wanted(kind, RunConfig())["config"], **there.get("config", {})},
    } != wanted(kind, config):
        raise ConfigError(
            f"{out} holds another run (see its run.json): choose another --out, or delete the folder"
        )
    done = "digest" in there and (out / "model").is_dir()
    if done:
        notice(f"{out} is finished already")
    return done


def wanted(kind: str, config: RunConfig) -> dict[str, Any]:
    return {"kind": kind, "config": config.model_dump(mode="json")}


@contextlib.contextmanager
def begun(out: Path, kind: str, config: RunConfig, model: Any, split: Split) -> Iterator[None]:
    """Write run.json before the run; where the run fails before its first step, nothing is left behind."""
    there = {
        **wanted(kind, config),
        "versions": api.versions(),
        "hashes": {"data": split.digest, "start": weights_digest(model)},
        "roles": {name: {"rows": len(role), "digest": role.digest} for name, role in split.roles.items()},
    }
    write_text(out / "run.json", json.dumps(there, indent=2))
    try:
        yield
    except Exception:
        if main() and not (out / "log.jsonl").exists():
            (out / "run.json").unlink()
            shutil.rmtree(out / "reference", ignore_errors=True)
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def finish(out: Path, result: api.Result, tokenizer: Any, seconds: float) -> None:
    """Save the model, then say in run.json that the run is whole."""
    quiet()
    if main():
        save_model(result.model, tokenizer, out / "model")
        write_text(
            out / "run.json",
            json.dumps({**read_run(out), "digest": result.digest, "seconds": round(seconds, 1)}, indent=2),
        )
        write_card(out)
    wait()


def write_card(out: Path) -> None:
    """The model card of a forget run, from what its folder holds by now."""
    run = read_run(out)
    if run.get("kind") != "forget" or not (out / "model").is_dir():
        return
    read = lambda file: json.loads(file.read_text(encoding="utf-8"))  # noqa: E731
    measurements = read(out / "measurements.json") if (out / "measurements.json").exists() else []
    attacks = {file.stem.removeprefix("attack-"): read(file) for file in out.glob("attack-*.json")}
    write_text(out / "model" / "README.md", model_card(run, measurements, attacks))
