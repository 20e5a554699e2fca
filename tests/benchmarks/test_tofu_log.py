"""Published evaluation logs against a naive transcription of the published aggregation; broken logs."""

from __future__ import annotations

import copy
import gzip
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import hmean, ks_2samp

from unremember.audits.forget_quality import ForgetQuality
from unremember.audits.model_utility import ModelUtility
from unremember.benchmarks.tofu_log import (
    FORGET_TASK,
    LOG_FIELDS,
    LOG_TASKS,
    OPTION_TASKS,
    RETAIN_TASK,
    scores_from_logs,
)
from unremember.cli import app
from unremember.data.split import make_split
from unremember.errors import DataError
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations, TokenRecords

AUTHORS, WORLD = OPTION_TASKS


def make_log(
    seed: int, sizes: tuple[int, ...] = (9, 12, 7, 8), shift: float = 0.0, form: type = dict
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    log: dict[str, Any] = {}
    for task, n in zip(LOG_TASKS, sizes):
        wrong = 5 if task in (RETAIN_TASK, FORGET_TASK) else 3
        true = rng.gamma(2.0, 0.5, n)
        columns = {
            "avg_gt_loss": true,
            "avg_paraphrased_loss": true if task in OPTION_TASKS else rng.gamma(2.0, 0.5, n) + shift,
            "average_perturb_loss": rng.gamma(3.0, 0.8, (n, wrong)),
            "rougeL_recall": rng.uniform(0.1, 1, n),
        }
        log[task] = {
            f: v.tolist() if form is list else {str(i): x for i, x in enumerate(v.tolist())}
            for f, v in columns.items()
        }
        log[task]["generated_text"] = {str(i): ["q", "a", "t"] for i in range(n)}
    return log


def published(log: dict[str, Any], oracle: dict[str, Any], arithmetic: bool = True) -> tuple[float, float]:
    """(forget quality, model utility), example by example."""
    parts = []
    for task in (RETAIN_TASK, AUTHORS, WORLD):
        fields = log[task]
        probabilities, ratios = [], []
        for key, loss in fields["avg_gt_loss"].items():
            wrong = [math.exp(-x) for x in fields["average_perturb_loss"][key]]
            probabilities.append(
                math.exp(-loss) / ((math.exp(-loss) + sum(wrong)) if "eval_log" not in task else 1)
            )
            middle = sum(wrong) / len(wrong) if arithmetic else math.prod(wrong) ** (1 / len(wrong))
            ratios.append(max(0.0, 1 - middle / math.exp(-fields["avg_paraphrased_loss"][key])))
        parts += [np.mean(probabilities), np.mean(list(fields["rougeL_recall"].values())), np.mean(ratios)]
    quality = ks_2samp(truth_ratios(log[FORGET_TASK]), truth_ratios(oracle[FORGET_TASK])).pvalue
    return float(quality), float(hmean(parts))


def truth_ratios(fields: dict[str, Any]) -> list[float]:
    pairs = zip(fields["average_perturb_loss"].values(), fields["avg_paraphrased_loss"].values())
    return [math.exp(np.mean(wrong) - paraphrase) for wrong, paraphrase in pairs]


def with_keys(log: dict[str, Any]) -> dict[str, Any]:
    """A log of lists as one of objects."""
    return {task: {f: dict(enumerate(values)) for f, values in log[task].items()} for task in LOG_TASKS}


def write(path: Path, log: Any) -> Path:
    path.write_text(json.dumps(log))
    return path


@pytest.fixture
def oracle(tmp_path: Path) -> Path:
    return write(tmp_path / "oracle.json", make_log(1, shift=1.0))


@pytest.mark.parametrize("seed", range(4))
def test_the_published_aggregation(seed: int, oracle: Path, tmp_path: Path) -> None:
    log = make_log(seed + 10)
    quality, utility = published(log, json.loads(oracle.read_text()))
    scores = scores_from_logs(write(tmp_path / "log.json", log), oracle)
    assert scores["forget_quality"] == pytest.approx(quality, rel=1e-12) and scores[
        "model_utility"
    ] == pytest.approx(utility, rel=1e-12)
    assert scores["model_utility_geometric"] == pytest.approx(
        published(log, log, arithmetic=False)[1], rel=1e-12
    )
    assert (
        scores["log10_p"] == pytest.approx(math.log10(quality))
        and scores["notes"] == []
        and len(scores["parts"]) == 9
    )
    assert scores["n"] == {task: len(log[task]["avg_gt_loss"]) for task in LOG_TASKS}


def test_by_hand(oracle: Path, tmp_path: Path) -> None:
    """One example a task, powers of two."""
    two = math.log(2)
    fields = {
        "avg_gt_loss": [two],
        "avg_paraphrased_loss": [two],
        "average_perturb_loss": [[2 * two, 4 * two]],
        "rougeL_recall": [0.5],
    }
    scores = scores_from_logs(write(tmp_path / "log.json", dict.fromkeys(LOG_TASKS, fields)))
    assert scores["parts"][f"{RETAIN_TASK} probability"] == pytest.approx(1 / 2)
    assert scores["parts"][f"{AUTHORS} probability"] == pytest.approx((1 / 2) / (1 / 2 + 1 / 4 + 1 / 16))
    assert scores["parts"][f"{WORLD} truth_ratio"] == pytest.approx(1 - (1 / 4 + 1 / 16) / 2 / (1 / 2))
    assert scores["model_utility"] == pytest.approx(9 / (2 + 2 * 13 / 8 + 3 * 2 + 3 * 16 / 11))
    assert scores["model_utility_geometric"] == pytest.approx(
        9 / (2 + 2 * 13 / 8 + 3 * 2 + 3 / (1 - 1 / 8 / (1 / 2)))
    )
    assert scores["forget_quality"] is None and "--oracle-log" in scores["reason"]


def test_a_log_against_itself_and_far_from_itself(tmp_path: Path) -> None:
    near, far = make_log(3, (9, 40, 7, 8)), make_log(3, (9, 40, 7, 8), shift=50.0)
    a, b = write(tmp_path / "a.json", near), write(tmp_path / "b.json", far)
    assert scores_from_logs(a, a)["forget_quality"] == 1.0
    apart = scores_from_logs(b, a)
    assert apart["forget_quality"] == pytest.approx(1.8603e-23, rel=1e-4) and apart["saturated"]


def test_every_form_of_a_log(oracle: Path, tmp_path: Path) -> None:
    log = make_log(5)
    plain = scores_from_logs(write(tmp_path / "log.json", log), oracle)
    folder, zipped = tmp_path / "folder", tmp_path / "zipped"
    for place in (folder, zipped):
        place.mkdir()
    for task in LOG_TASKS:
        write(folder / task, log[task])
        (zipped / f"{task}.gz").write_bytes(gzip.compress(json.dumps(log[task]).encode()))
    (folder / "readme.txt").write_text("no log")
    (tmp_path / "log.json.gz").write_bytes(gzip.compress(json.dumps(log).encode()))
    (tmp_path / "hidden.json").write_bytes(gzip.compress(json.dumps(log).encode()))
    shuffled = {
        task: {
            f: dict(reversed(v.items())) if f == "average_perturb_loss" else v for f, v in log[task].items()
        }
        for task in LOG_TASKS
    }
    lists = write(tmp_path / "lists.json", make_log(5, form=list))
    mixed = write(tmp_path / "mixed.json", {**shuffled, "another_task.json": {"avg_gt_loss": {}}})
    for form in (folder, zipped, tmp_path / "log.json.gz", tmp_path / "hidden.json", lists, mixed):
        scores = scores_from_logs(form, oracle)
        assert (
            scores["model_utility"] == pytest.approx(plain["model_utility"], rel=1e-12)
            and scores["forget_quality"] == plain["forget_quality"]
        )
    only = {FORGET_TASK: make_log(1, shift=1.0)[FORGET_TASK]}
    assert (
        scores_from_logs(tmp_path / "log.json", write(tmp_path / "only.json", only))["forget_quality"]
        == plain["forget_quality"]
    )


@pytest.mark.parametrize("task", LOG_TASKS)
@pytest.mark.parametrize("field", LOG_FIELDS)
def test_a_missing_field_is_one_line(task: str, field: str, oracle: Path, tmp_path: Path) -> None:
    log = make_log(6)
    del log[task][field]
    path = write(tmp_path / "log.json", log)
    if task in OPTION_TASKS and field == "avg_paraphrased_loss":
        assert scores_from_logs(path, oracle)["model_utility"] == pytest.approx(
            published(make_log(6), make_log(1))[1]
        ), "the answer itself stands for it"
    elif task == FORGET_TASK and field == "rougeL_recall":
        assert scores_from_logs(path, oracle)["forget_quality"] is not None, "nothing reads it"
    else:
        with pytest.raises(DataError, match=f"{task}.*{field}") as caught:
            scores_from_logs(path, oracle)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", [RETAIN_TASK, *OPTION_TASKS])
def test_a_missing_task_is_named(task: str, tmp_path: Path) -> None:
    log = make_log(6)
    del log[task]
    with pytest.raises(DataError, match=f"no task '{task}'"):
        scores_from_logs(write(tmp_path / "log.json", log))


def change(task: str, field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda log: log[task].update({field: value})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(RETAIN_TASK, "avg_gt_loss", []), "holds no examples"),
        (change(RETAIN_TASK, "avg_gt_loss", {}), "holds no examples"),
        (change(WORLD, "rougeL_recall", 0.5), "holds no examples"),
        (change(RETAIN_TASK, "avg_gt_loss", ["high"] * 9), "one number"),
        (change(RETAIN_TASK, "average_perturb_loss", [1.0] * 9), "a list of as many numbers"),
        (change(AUTHORS, "average_perturb_loss", [[1.0, 2.0], [1.0]] * 4), "a list of as many numbers"),
        (change(FORGET_TASK, "average_perturb_loss", [[]] * 12), "a list of as many numbers"),
        (change(RETAIN_TASK, "avg_paraphrased_loss", {"x": 1.0}), "share no example"),
        (lambda log: log.update({WORLD: [1]}), "is a list"),
        (lambda log: log.update({FORGET_TASK: None}), "NoneType"),
    ],
)
def test_a_field_that_makes_no_sense_is_one_line(
    spoil: Any, message: str, oracle: Path, tmp_path: Path
) -> None:
    log = make_log(6)
    spoil(log)
    with pytest.raises(DataError, match=message):
        scores_from_logs(write(tmp_path / "log.json", log), oracle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"{",
        b"3",
        b"\x1f\x8bbroken",
        gzip.compress(b'{"a": 1}', mtime=0)[:-6],
        b'{"other.json": {}}',
        b"\xff",
    ],
)
def test_what_is_no_log(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "log.json").write_bytes(content)
    with pytest.raises(DataError, match=r"log\.json"):
        scores_from_logs(tmp_path / "log.json")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none.json"):
        with pytest.raises(DataError, match=path.name):
            scores_from_logs(path)


def test_oddities_are_computed_with_and_said(oracle: Path, tmp_path: Path) -> None:
    log = make_log(6)
    log[RETAIN_TASK]["avg_gt_loss"]["0"] = -0.5
    log[WORLD]["rougeL_recall"]["1"] = 1.5
    del log[AUTHORS]["average_perturb_loss"]["2"]
    scores = scores_from_logs(write(tmp_path / "log.json", log), oracle)
    assert sum("avg_gt_loss is below 0" in note for note in scores["notes"]) == 1
    assert sum("a recall above 1" in note for note in scores["notes"]) == 1
    assert any("same examples" in note and AUTHORS in note for note in scores["notes"])
    trimmed = copy.deepcopy(log)
    for field in LOG_FIELDS[:3]:
        trimmed[AUTHORS][field].pop("2", None)
    assert scores["parts"][f"{RETAIN_TASK} probability"] == pytest.approx(
        np.mean([math.exp(-x) for x in log[RETAIN_TASK]["avg_gt_loss"].values()])
    )
    without = scores_from_logs(write(tmp_path / "kept.json", trimmed))
    assert scores["parts"][f"{AUTHORS} truth_ratio"] == pytest.approx(
        without["parts"][f"{AUTHORS} truth_ratio"]
    )
    resized = scores_from_logs(tmp_path / "log.json", write(tmp_path / "o.json", make_log(1, (9, 30, 7, 8))))
    assert (
        any("12 and 30 forget examples" in note for note in resized["notes"])
        and 0 <= resized["forget_quality"] <= 1
    )


@pytest.mark.parametrize(
    ("token", "task", "field"),
    [
        ("NaN", RETAIN_TASK, "avg_gt_loss"),
        ("Infinity", FORGET_TASK, "avg_paraphrased_loss"),
        ("-Infinity", WORLD, "rougeL_recall"),
        ("1e400", AUTHORS, "avg_gt_loss"),
        ("800.0", AUTHORS, "avg_gt_loss"),
        ("1e308", RETAIN_TASK, "avg_paraphrased_loss"),
    ],
)
def test_the_command_prints_strict_json(
    token: str,
    task: str,
    field: str,
    oracle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = make_log(6)
    log[task][field]["0"] = "TOKEN"
    (tmp_path / "log.json").write_text(json.dumps(log).replace('"TOKEN"', token))
    words = [
        "benchmark",
        "tofu",
        "--from-log",
        str(tmp_path / "log.json"),
        "--oracle-log",
        str(oracle),
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["unremember", *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    printed = capsys.readouterr().out
    scores = json.loads(printed, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert (
        not end.value.code
        and scores["model_utility"] is not None
        and {"forget_quality", "parts", "notes"} <= scores.keys()
    )
    if token in ("NaN", "Infinity", "-Infinity", "1e400"):
        assert any(field in note and "not a finite number 1 times" in note for note in scores["notes"])
    if task == FORGET_TASK:
        assert scores["forget_quality"] is None and "not finite" in scores["reason"]


def test_the_command_in_words(
    oracle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "log.json", make_log(6))
    scores = scores_from_logs(path, oracle)
    monkeypatch.setattr(
        sys, "argv", ["unremember", "benchmark", "tofu", "--from-log", str(path), "--oracle-log", str(oracle)]
    )
    with pytest.raises(SystemExit):
        app.main()
    lines = capsys.readouterr().out.splitlines()
    assert (
        f"forget_quality: {scores['forget_quality']}" in lines
        and f"model_utility: {scores['model_utility']}" in lines
    )
    for words, message in (
        (["people", "--from-log", str(path)], "reads logs of tofu"),
        (["tofu", "--oracle-log", str(path)], "needs --from-log"),
    ):
        monkeypatch.setattr(sys, "argv", ["unremember", "benchmark", *words])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert end.value.code == 2 and message in capsys.readouterr().err


def test_the_log_path_agrees_with_the_live_path() -> None:
    """The same losses as a log and as observations of a model: one example a text, one token a text."""
    log, reference = make_log(7, form=list), make_log(8, form=list, shift=0.3)
    names = dict(zip(LOG_TASKS, ("retain_eval", "forget", "real_authors", "world_facts")))
    roles = {}
    for task, role in names.items():
        n, wrong = np.shape(log[task]["average_perturb_loss"])
        paraphrase = {} if task in OPTION_TASKS else {"paraphrased_answer": "p"}
        roles[role] = [
            {"question": f"{role} {i}", "answer": "word", "perturbed_answers": ["w"] * wrong, **paraphrase}
            for i in range(n)
        ]
    split = make_split(roles, utility=("retain_eval", "real_authors", "world_facts"))

    def scores(losses: Any) -> TokenRecords:
        flat = np.asarray(losses, dtype=np.float64)
        rows = np.arange(len(flat)) if flat.ndim == 1 else np.repeat(np.arange(len(flat)), flat.shape[1])
        size = flat.size
        return TokenRecords(
            rows,
            np.arange(size + 1),
            -flat.reshape(-1),
            np.ones(size, bool),
            np.ones(size, bool),
            [""] * size,
        )

    def observations(of: dict[str, Any], name: str) -> Observations:
        values: dict[Any, Any] = {Generations(role): ["word"] * len(split[role]) for role in roles}
        for task, role in names.items():
            for text, field in zip(("answer", "perturbed_answers", "paraphrased_answer"), LOG_FIELDS):
                values[TokenScores(role, text)] = scores(of[task][field])
        return Observations(name, name, split, values)

    for task in LOG_TASKS:
        log[task]["rougeL_recall"] = [1.0] * len(split[names[task]])
    unlearned, oracle = observations(log, "mine"), observations(reference, "oracle")
    quality, utility = published(with_keys(log), with_keys(reference), arithmetic=False)
    assert ForgetQuality().measure(unlearned, [oracle]).value == pytest.approx(quality, rel=1e-9)
    live = ModelUtility().measure(unlearned, [])
    assert live.value == pytest.approx(utility, rel=1e-6)
