"""Compare several models with their controls: one model in memory at a time, one observation store."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember import api
from unremember.audits.controls import Controls, requests_of
from unremember.audits.probability import has
from unremember.data.budget import Budget, check_budgets
from unremember.data.split import Row, Split
from unremember.errors import ConfigError
from unremember.models.load import resolve_model_folder
from unremember.observe.kinds.generations import Generations
from unremember.observe.protocol import ObservationRequest
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.report.comparison import ComparedArtefact, Comparison
from unremember.report.page import write_report
from unremember.runs.config import RunConfig
from unremember.runs.folder import MODEL, artefact_of, split_of, steps_taken
from unremember.runs.record import RunRecord, read_record
from unremember.tasks.artefact import Interface, check_comparable

_SAMPLES = {"forget": 3, "retain": 2}
"""Questions of each role that the report shows with every model's answer."""
_SAMPLED = "sampled questions"
"""The role of these questions."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model of a comparison: what it stands for, its folder or hub name, and its name in the table."""

    kind: str
    path: str
    name: str


def run_comparison(
    models: Sequence[str],
    config: RunConfig,
    *,
    oracles: Sequence[str] = (),
    original: str = "",
    audits: Sequence[Any] = (),
    store: Path | None = None,
    title: str = "",
    show_text: bool = False,
) -> Comparison:
    """Measure controls and models with the same audits.

    Every model is loaded, observed once and dropped before the next one is loaded.

    Args:
        models: Run folders, model folders or hub names.
        config: Its data and its prompt template.
        oracles: Models retrained without the forget set.
        original: The model before forgetting.
        audits: Names, ``{"name": …, parameters}`` or built audits; none named: all that apply to the data.
        store: Folder of the observations; None: they are dropped at the end.
        show_text: Also ask every model a few questions, and show them, the true answers and what it says.
            Text that was to be forgotten stands in the report then.

    Raises:
        ConfigError: An audit is unknown, or none applies, or a control is none by its own record (nothing is
            loaded then); or a model has another tokenizer, prompt template or architecture than the first.
    """
    split = split_of(config.data)
    chosen = api.chosen_audits(audits, split)
    candidates = named_candidates(original, oracles, models)
    check_controls(candidates, split)
    template = config.template or shared_template(candidates)
    interfaces: dict[str, Interface] = {}
    questions = sampled_questions(split) if show_text else []
    requests = requests_of(chosen, split)
    with tempfile.TemporaryDirectory() as scratch:
        observation_store = Store(store or Path(scratch))
        observed = [
            observe_model(candidate, template, split, requests, questions, observation_store, interfaces)
            for candidate in candidates
        ]
    by_kind = list(zip([candidate.kind for candidate in candidates], observed, strict=True))
    before = next((observations for kind, (observations, _) in by_kind if kind == "original"), None)
    retrained = [observations for kind, (observations, _) in by_kind if kind == "oracle"]
    controls = Controls(chosen, before, retrained)
    artefacts, answers = [], {}
    for candidate, (observations, texts) in zip(candidates, observed, strict=True):
        rows = tuple(measurement.row() for measurement in controls.card(observations))
        method = method_of_run(candidate.path)
        artefacts.append(
            ComparedArtefact(candidate.name, candidate.kind, method, observations.artefact, rows)
        )
        answers[candidate.name] = texts
    facts = {"data": f"{split.name} · {split.digest[:16]}", **api.versions()}
    heading = title or f"Forgetting on {split.name}"
    return Comparison(heading, tuple(artefacts), facts, samples(questions, answers))


def named_candidates(original: str, oracles: Sequence[str], models: Sequence[str]) -> list[Candidate]:
    """List the original, the oracles and the models, each named by the last part of its path.

    Two that would share a name are named by their whole paths.

    Raises:
        ConfigError: Two models, or two oracles, are the same one.
    """
    paths = [
        *(("original", original) for _ in range(bool(original))),
        *(("oracle", oracle) for oracle in oracles),
        *(("unlearned", model) for model in models),
    ]
    check_distinct(paths)
    names = short_names([path for _, path in paths])
    return [Candidate(kind, path, name) for (kind, path), name in zip(paths, names, strict=True)]


def check_distinct(paths: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError where two paths of a kind name the same model folder."""
    earlier: dict[tuple[str, Path], str] = {}
    for kind, path in paths:
        key = kind, resolve_model_folder(path).resolve()
        if key in earlier:
            what = "oracle" if kind == "oracle" else "model"
            raise ConfigError(f"{earlier[key]} and {path} are the same {what}: give it once")
        earlier[key] = path


def short_names(paths: Sequence[str]) -> list[str]:
    """Return the last part of each path, or the whole path where two would have the same name."""
    names = [Path(path).name for path in paths]
    return [path if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]


def check_controls(candidates: Sequence[Candidate], split: Split) -> None:
    """Raise ConfigError for a control whose own record says that it is none.

    An oracle was trained without the forget set, and the original with it; both learned the present data. A
    folder without a record says nothing.
    """
    for candidate in candidates:
        record = record_of(candidate.path) if candidate.kind in ("original", "oracle") else None
        if record is None:
            continue
        which = f"the {candidate.kind} {candidate.path}"
        learned = record.kind == "train" and "forget" not in record.config.without
        learned &= not record.config.only or "forget" in record.config.only
        forgot = record.kind == "forget" and record.config.method_name != "retrain"
        if candidate.kind == "oracle" and (learned or forgot):
            what = "learned the forget set" if learned else f"was made by {record.config.method_name}"
            raise ConfigError(f"{which} {what}: `unremember train --without forget` makes an oracle")
        if candidate.kind == "original" and record.kind == "train" and not learned:
            raise ConfigError(f"{which} never saw the forget set: give it as --oracle")
        for role in ("forget", "retain"):
            recorded = record.roles.get(role)
            if recorded and role in split.roles and recorded.digest != split[role].digest:
                raise ConfigError(
                    f"{which} was made with another {role} set ({recorded.rows} rows, here "
                    f"{len(split[role])}): it is no control here; make it with the same data"
                )


def record_of(name: str) -> RunRecord | None:
    """Return the record of a run folder, or of the run whose ``model/`` is named; None without one."""
    folder = Path(name)
    return read_record(folder.parent if folder.name == MODEL else folder)


def shared_template(candidates: Sequence[Candidate]) -> str | Mapping[str, Any]:
    """Return the prompt template that the runs recorded; "" where none did.

    Raises:
        ConfigError: They recorded different ones.
    """
    records = {candidate.path: record_of(candidate.path) for candidate in candidates}
    templates = {path: r.config.template for path, r in records.items() if r and r.config.template}
    (path, template), *further = templates.items() or [("", "")]
    for further_path, further_template in further:
        if further_template != template:
            raise ConfigError(
                f"{path} and {further_path} were trained with different prompt templates: give the one by "
                "which all are asked, template=…"
            )
    return template


def observe_model(
    candidate: Candidate,
    template: str | Mapping[str, Any],
    split: Split,
    requests: Sequence[ObservationRequest[Any]],
    questions: Sequence[tuple[str, Row]],
    store: Store,
    interfaces: dict[str, Interface],
) -> tuple[Observations, Sequence[str]]:
    """Load a model, observe it and its answers to some questions in one pass, and drop it.

    Args:
        interfaces: Those of the models so far, to which its own is added.

    Raises:
        ConfigError: It is not asked as the models so far.
    """
    artefact = artefact_of(candidate.path, template)
    interfaces[f"{candidate.kind} {candidate.path}"] = Interface.of(artefact)
    check_comparable(interfaces)
    if not questions:
        return store.observe(artefact, split, requests), []
    sampled, answers = [row for _, row in questions], Generations(_SAMPLED)
    with_questions = split.with_rows(**{_SAMPLED: sampled})
    observations = store.observe(artefact, with_questions, [*requests, answers])
    return dataclasses.replace(observations, split=split), observations[answers]


def sampled_questions(split: Split) -> list[tuple[str, Row]]:
    """Return (role, row) of some questions, spread evenly over each role that has questions and answers."""
    questions = []
    for role, count in _SAMPLES.items():
        if has(split, role, "question") and has(split, role, "answer"):
            rows = [row for row in split[role].rows if "question" in row]
            chosen = [rows[i * len(rows) // count] for i in range(min(count, len(rows)))]
            questions += [(role, row) for row in chosen]
    return questions


def samples(
    questions: Sequence[tuple[str, Row]], answers: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], ...]:
    """Return each question with its true answer and what every model answers."""
    return tuple(
        {
            "role": role,
            "question": row["question"],
            "answer": row["answer"],
            "said": {name: texts[i] for name, texts in answers.items()},
        }
        for i, (role, row) in enumerate(questions)
    )


def method_of_run(folder: str) -> str:
    """Return the name of the method that a forget run used; "" for anything else."""
    record = read_record(folder)
    return record.config.method_name if record and record.kind == "forget" else ""


def unequal_budgets(models: Sequence[str]) -> str:
    """Return a remark where forget runs spent unequal budgets, else "".

    At equal epochs a sampling looks better merely because it draws more rows.
    """
    spent = {}
    for path, name in zip(models, short_names(models), strict=True):
        record, steps = read_record(path), steps_taken(path)
        if record and record.kind == "forget" and steps:
            spent[name] = Budget(steps, steps * record.config.settings.batch_size)
    try:
        check_budgets(spent)
    except ConfigError as error:
        return f"{error}; `unremember experiment` compares methods at matched forgetting"
    return ""


def save_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write ``comparison.json`` and the report into a folder; return the page."""
    comparison.save(folder / "comparison.json")
    return write_report(comparison, folder / "report.html")
