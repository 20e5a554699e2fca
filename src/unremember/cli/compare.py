"""``compare``: several models and their controls, measured over one observation store."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from unremember import api
from unremember.audits.probability import has
from unremember.cli.config import RunConfig, read_config
from unremember.cli.folder import notice, read_run, result_of, split_of
from unremember.data.budget import Budget, check_budgets
from unremember.data.split import Row, Split, make_split
from unremember.errors import ConfigError
from unremember.observe.records import Want
from unremember.observe.store import Store
from unremember.registry import audits as registry
from unremember.report.comparison import Artefact, Comparison
from unremember.report.page import write_report
from unremember.report.table import rich_table

console = Console()
SAMPLES = {"forget": 3, "retain": 2}
"""Questions of each role that the report shows with every model's answer."""


def asked(data: Any, keys: Sequence[str]) -> RunConfig:
    """The data and the template of ``data.…=`` and ``template=`` keys: a measurement has no other."""
    for key in keys:
        if key.split("=")[0].split(".")[0] not in ("data", "template"):
            raise ConfigError(f"only data.…= and template= can be given here, not {key!r}")
    return read_config(None, {"data": data}, keys)


def compared(
    models: Sequence[str],
    config: RunConfig,
    oracles: Sequence[str],
    original: str,
    store: Path | None,
    audits: Sequence[Any] = (),
    title: str = "",
) -> Comparison:
    """Measure controls and models, each with the same audits (none named: all that apply), and ask them the same questions.

    ``store`` keeps the observations (None: only while they are needed). Raises ConfigError for an unknown audit.
    """
    for name in audits:
        registry.make(name)
    split = split_of(config.data)
    first = result_of(original, config.template) if original else None
    retrained = [result_of(name, config.template) for name in oracles]
    loaded = [("original", original, first)] * bool(original) + [
        ("oracle", *pair) for pair in zip(oracles, retrained)
    ]
    every = [*loaded, *(("unlearned", name, None) for name in models)]
    questions, said, artefacts = sampled(split), {}, []
    with tempfile.TemporaryDirectory() as scratch:
        kept = store or Path(scratch)
        for (kind, path, there), name in zip(every, short([path for _, path, _ in every])):
            result = there or result_of(path, config.template)
            found = api.audit(result, split, oracle=retrained, original=first, audits=audits, store=kept)
            artefacts.append(
                Artefact(name, kind, method_of(path), result.digest, tuple(m.row() for m in found))
            )
            said[name] = answers(result, questions, Store(kept))
    samples = [
        {
            "role": role,
            "question": row["question"],
            "answer": row["answer"],
            "said": {name: text[i] for name, text in said.items()},
        }
        for i, (role, row) in enumerate(questions)
    ]
    facts = {"data": f"{split.name} · {split.digest[:16]}", **api.versions()}
    return Comparison(title or f"Forgetting on {split.name}", tuple(artefacts), facts, tuple(samples))


def sampled(split: Split) -> list[tuple[str, Row]]:
    """(role, row) of some questions, spread over each role."""
    found = []
    for role, count in SAMPLES.items():
        if has(split, role, "question") and has(split, role, "answer"):
            rows = [row for row in split[role].rows if "question" in row]
            found += [(role, rows[i * len(rows) // count]) for i in range(min(count, len(rows)))]
    return found


def answers(result: api.Result, questions: Sequence[tuple[str, Row]], store: Store) -> Sequence[str]:
    """What a model says to each question."""
    if not questions:
        return []
    split = make_split({"shown": [row for _, row in questions]})
    return store.observe(
        result.model, result.task, split, [Want("generations", "shown")], quiet=True
    ).generations("shown")


def short(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or the whole path where two would be called the same."""
    names = [Path(path).name for path in paths]
    return [path if names.count(name) > 1 else name for path, name in zip(paths, names)]


def method_of(folder: str) -> str:
    """The method of a run of ``forget``, else ""."""
    run: Mapping[str, Any] = read_run(folder)
    method = run["config"]["method"] if run.get("kind") == "forget" else ""
    return method if isinstance(method, str) else method["name"]


def unequal(models: Sequence[str]) -> str:
    """A remark where runs of ``forget`` spent unequal budgets: at equal epochs a sampling looks good by seeing more."""
    spent = {}
    for path, name in zip(models, short(models)):
        log, settings = Path(path) / "log.jsonl", read_run(path).get("config", {}).get("settings", {})
        if method_of(path) and log.exists() and "batch_size" in settings:
            steps = len(log.read_text(encoding="utf-8").splitlines())
            spent[name] = Budget(steps, steps * settings["batch_size"])
    try:
        check_budgets(spent)
    except ConfigError as error:
        return f"{error}; `unremember bench` compares at matched forgetting"
    return ""


def publish(comparison: Comparison, out: Path, as_json: bool) -> None:
    """Write comparison.json and report.html, and print the table (or the JSON)."""
    comparison.save(out / "comparison.json")
    page = write_report(comparison, out / "report.html")
    if as_json:
        print(comparison.text())
    else:
        console.print(rich_table(comparison))
    notice(f"report: {page}")


def compare_run(
    models: Sequence[str],
    data: str,
    oracles: Sequence[str],
    original: str,
    out: Path,
    as_json: bool,
    keys: Sequence[str],
) -> None:
    """Measure, print the table, write the report."""
    if not models:
        raise ConfigError("compare needs at least one model: a model folder, a run folder or a hub name")
    if remark := unequal(models):
        notice(remark)
    publish(compared(models, asked(data, keys), oracles, original, out / "observations"), out, as_json)
