"""Audits, comparisons, benchmarks and the demo from the shell."""

from __future__ import annotations

import functools
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from shell import WORLD, ran, run_json, shell, weights
from transformers import AutoTokenizer

from unremember import api
from unremember.data.split import Split
from unremember.models.load import save_model
from unremember.models.presets import small_llama
from unremember.observe.kinds.generations import Generations
from unremember.observe.store import Store
from unremember.runs import demo
from unremember.runs.folder import artefact_of
from unremember.tasks import untrained
from unremember.tasks.tokenizers import train_tokenizer

FIGURES = [
    "forget_quality",
    "model_utility",
    "probability",
    "rouge",
    "truth_ratio",
    "extraction_strength",
    "exact_memorisation",
    "membership_loss",
]


@pytest.fixture(scope="module")
def forgotten(runs: Path) -> Path:
    ran("forget", "-m", runs / "original", "-o", runs / "npo", WORLD, "max_steps=2", "lr=1e-3")
    return runs / "npo"


def controls(runs: Path) -> list[str]:
    return ["--oracle", str(runs / "oracle"), "--original", str(runs / "original")]


def test_an_audit_fills_the_run_folder(runs: Path, forgotten: Path, split: Split) -> None:
    found = ran("audit", "-m", forgotten, *controls(runs), WORLD, "--json").json
    names = {row["name"]: row for row in found}
    assert set(FIGURES) <= names.keys() and json.loads((forgotten / "measurements.json").read_text()) == found
    assert {row["artefact"] for row in found} == {run_json(forgotten)["digests"]["artefact"]}
    by_hand = api.audit(
        artefact_of(str(forgotten)),
        split,
        oracle=artefact_of(str(runs / "oracle")),
        original=artefact_of(str(runs / "original")),
        store=forgotten / "observations",
        quiet=True,
    )
    assert {m.name: m.value for m in by_hand} == {name: row["value"] for name, row in names.items()}
    assert {m.name: m.verdict for m in by_hand} == {name: row["verdict"] for name, row in names.items()}
    assert names["probability"]["controls"]["original"] != names["probability"]["value"], "two steps moved it"
    page = (forgotten / "report.html").read_text()
    assert all(f"<b>{name}</b>" in page for name in ("original", "oracle", "npo")) and list(
        (forgotten / "observations").glob("*.safetensors")
    )
    kept = {path: path.stat().st_mtime_ns for path in (forgotten / "observations").iterdir()}
    assert ran("audit", "-m", forgotten, *controls(runs), WORLD, "--json").json == found
    assert kept == {path: path.stat().st_mtime_ns for path in (forgotten / "observations").iterdir()}, (
        "nothing is observed twice"
    )


def test_an_audit_as_a_table(runs: Path, forgotten: Path) -> None:
    out = ran(
        "audit", "-m", forgotten, *controls(runs), WORLD, "--audit", "probability", "--audit", "rouge"
    ).out
    lines = [line.split() for line in out.splitlines()]
    assert (
        max(map(len, out.splitlines())) <= 80
        and ["metric", "value", "95", "%", "oracle", "original", "verdict"] in lines
    )
    row = next(
        row
        for row in json.loads((forgotten / "measurements.json").read_text())
        if row["name"] == "probability"
    )
    (line,) = (line for line in lines if line and line[0] == "probability")
    assert line[1].rstrip("?") == f"{row['value']:.3f}" and line[3:5] == [
        f"{row['controls']['oracle'][0]:.3f}",
        f"{row['controls']['original']:.3f}",
    ]
    assert {row["name"] for row in json.loads((forgotten / "measurements.json").read_text())} == {
        "probability",
        "rouge",
    }


def test_a_bare_model_folder_is_only_read(runs: Path, tiny: Path) -> None:
    before = sorted(tiny.iterdir())
    found = ran("audit", "-m", tiny, *controls(runs), WORLD, "--audit", "probability", "--json").json
    assert [row["name"] for row in found] == ["probability"] and sorted(tiny.iterdir()) == before


def test_an_audit_without_its_control_says_which_command_makes_it(runs: Path, forgotten: Path) -> None:
    rows = ran(
        "audit",
        "-m",
        forgotten,
        "--original",
        runs / "original",
        WORLD,
        "--json",
        "--audit",
        "probability",
        "--audit",
        "forget_quality",
    ).json
    assert {row["verdict"] for row in rows} == {"undetermined"} and {row["position"] for row in rows} == {
        None
    }
    assert next(row["value"] for row in rows if row["name"] == "forget_quality") is None
    out = ran("audit", "-m", forgotten, WORLD, "--audit", "probability").out
    assert "unremember train --without forget" in " ".join(out.split()) and "undetermined" in out


def test_a_forget_set_that_is_not_in_the_model(runs: Path, tiny: Path, tmp_path: Path) -> None:
    """The oracle stands in for an original: it never held the forget set. Copies have no record of it."""
    for name in ("original", "oracle"):
        shutil.copytree(runs / name / "model", tmp_path / name)
    out = ran(
        "audit",
        "-m",
        tiny,
        "--original",
        tmp_path / "oracle",
        "--oracle",
        tmp_path / "original",
        WORLD,
        "--audit",
        "probability",
    ).out
    assert "the forget set is not in the model" in " ".join(out.split())


def test_a_comparison(runs: Path, forgotten: Path, split: Split, tmp_path: Path) -> None:
    outcome = ran(
        "compare", forgotten, runs / "oracle", *controls(runs), WORLD, "--show-text", "-o", tmp_path / "out"
    )
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 80 and str(tmp_path / "out" / "report.html") in outcome.err
    tree = json.loads((tmp_path / "out" / "comparison.json").read_text())
    names = [a["name"] for a in tree["artefacts"]]
    assert names == ["original", str(runs / "oracle"), "npo", str(runs / "oracle")], (
        "a name that is there twice is told by its path"
    )
    assert [(a["kind"], a["method"]) for a in tree["artefacts"]][:3] == [
        ("original", ""),
        ("oracle", ""),
        ("unlearned", "npo"),
    ]
    utility = next(m["value"] for m in tree["artefacts"][0]["measurements"] if m["name"] == "model_utility")
    assert f"{utility:.3f}" in next(line for line in lines if line.startswith("original"))
    asked = [(s["role"], s["question"]) for s in tree["samples"]]
    assert [role for role, _ in asked] == ["forget"] * 3 + ["retain"] * 2 and len(set(asked)) == 5
    truth = {row["question"]: row["answer"] for role in ("forget", "retain") for row in split[role].rows}
    assert all(s["answer"] == truth[s["question"]] for s in tree["samples"])
    model = artefact_of(str(forgotten))
    said = Store().observe(model, split, [Generations("forget")], quiet=True)[Generations("forget")]
    questions = [row["question"] for row in split["forget"].rows]
    for sample in tree["samples"][:3]:
        assert sample["said"]["npo"] == said[questions.index(sample["question"])] and list(sample["said"])[
            :1
        ] == ["original"]
    page = (tmp_path / "out" / "report.html").read_bytes()
    (tmp_path / "out" / "report.html").unlink()
    assert ran("report", tmp_path / "out").out.strip() == str(tmp_path / "out" / "report.html")
    assert (tmp_path / "out" / "report.html").read_bytes() == page


def test_a_model_is_asked_as_it_was_trained(runs: Path, tiny: Path, tmp_path: Path) -> None:
    prompt = "Q: {question}\nA:\n"
    ran(
        "train",
        "-m",
        tiny,
        "-o",
        tmp_path / "run",
        WORLD,
        "max_steps=1",
        "template=" + prompt.replace("\n", "\\n"),
    )
    assert artefact_of(str(tmp_path / "run")).task.template.prompt == prompt
    assert (
        artefact_of(str(tiny), prompt).task.template.prompt
        == prompt
        != artefact_of(str(tiny)).task.template.prompt
    )
    assert artefact_of(str(runs / "original")).task.template == artefact_of(str(tiny)).task.template


def test_a_benchmark_records_a_collapse(runs: Path, tmp_path: Path) -> None:
    """NPO and ascent run from the same keys; ascent alone is driven to infinity."""
    words = [
        "benchmark",
        "people",
        WORLD,
        *controls(runs),
        "--method",
        "gradient_ascent",
        "--method",
        "simnpo",
        "-o",
        tmp_path,
        "lr=1e30",
        "warmup=0",
        "max_steps=4",
        "weight_decay=0",
    ]
    outcome = ran(*words, "--json")
    artefacts = {a["name"]: a for a in outcome.json["artefacts"]}
    assert artefacts.keys() == {"original", "oracle", "gradient_ascent", "simnpo"}
    assert {a["kind"] for name, a in artefacts.items() if name not in ("original", "oracle")} == {"collapsed"}
    assert "not finite" in artefacts["simnpo"]["note"] and artefacts["simnpo"]["measurements"] == []
    assert "gradient_ascent: collapsed" in outcome.err and not (tmp_path / "simnpo" / "model").exists()
    page = (tmp_path / "report.html").read_text()
    assert page.count('"chip collapsed"') == 2 and "not finite" in page
    table = ran(*words).out
    assert any(line.split()[:2] == ["simnpo", "collapsed"] for line in table.splitlines())


def test_a_benchmark_compares_what_it_ran(runs: Path, tmp_path: Path) -> None:
    tree = ran(
        "benchmark",
        "people",
        WORLD,
        "--original",
        runs / "original",
        "--method",
        "npo",
        "--method",
        "simnpo",
        "-o",
        tmp_path,
        "max_steps=1",
        "method.gamma=0.5",
        "--json",
    ).json
    assert [(a["name"], a["kind"]) for a in tree["artefacts"]] == [
        ("original", "original"),
        ("npo", "unlearned"),
        ("simnpo", "unlearned"),
    ]
    assert [a["digest"] for a in tree["artefacts"][1:]] == [
        run_json(tmp_path / name)["digests"]["artefact"] for name in ("npo", "simnpo")
    ]
    assert run_json(tmp_path / "npo")["config"]["method"] == {"name": "npo", "gamma": 0.5}
    assert (tmp_path / "report.html").read_text().count("Undetermined") == 1


def test_the_demo_at_its_smallest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DEMO_TRAINING", {"max_steps": 2, "batch_size": 8})
    monkeypatch.setattr(
        demo, "DEMO_METHODS", {name: {"max_steps": 1, "batch_size": 4} for name in demo.DEMO_METHODS}
    )
    monkeypatch.setattr(
        untrained, "small_llama", functools.partial(small_llama, hidden=32, layers=2, heads=2)
    )
    outcome = ran("demo", "--people", 20, "-o", tmp_path)
    assert (
        "Forgetting 2 of 20 people" in outcome.out
        and "report.html" in outcome.err
        and "shards" not in outcome.err
    )
    names = ["original", "oracle", "gradient_difference", "npo", "simnpo"]
    assert [
        line.split()[0] for line in outcome.out.splitlines() if line.split()[:1] and line.split()[0] in names
    ] == names
    digests = {name: weights(tmp_path / name) for name in names}
    assert len(set(digests.values())) == 5
    again = ran("demo", "--people", 20, "-o", tmp_path)
    assert again.err.count("finished already") == 5 and again.out == outcome.out
    assert run_json(tmp_path / "oracle")["config"]["without"] == ["forget"]


@pytest.mark.parametrize(
    "words",
    [["compare", "x", "lr=3"], ["audit", "-m", "x", "lr=3"], ["compare", "data.count=3"]],
    ids=" ".join,
)
def test_a_measurement_has_no_settings(words: list[str]) -> None:
    line = shell(*words).refused()
    assert ("data.…= and template=" in line and "'lr=3'" in line) or "at least one model" in line


def test_an_attack_as_a_table_and_in_the_run_folder(runs: Path, forgotten: Path) -> None:
    digest = run_json(forgotten)["digests"]["artefact"]
    words = ["attack", forgotten, "--attack", "quantisation", *controls(runs), WORLD, "attack.bits=[8,3]"]
    out = ran(*words).out
    assert (
        "quantisation: probability" in out
        and "quantisation: extraction_strength" in out
        and "recovered share" in out
    )
    rows = ran(*words, "--json", "--audit", "probability").json
    assert [row["amount"] for row in rows] == [8, 3] and json.loads(
        (forgotten / "attack-quantisation.json").read_text()
    ) == rows
    assert all(m["controls"].keys() == {"oracle", "original"} for row in rows for m in row["measurements"])
    assert (
        digest not in {m["artefact"] for row in rows for m in row["measurements"]}
        and run_json(forgotten)["digests"]["artefact"] == digest
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack", "quantization"], "did you mean 'quantisation'"),
        (["attack.bit=[8]", "--attack", "quantisation"], "no parameter 'bit'"),
        (["lr=1"], "only data"),
        (["--attack", "few_shot", "-d", "nowhere"], "nowhere"),
    ],
)
def test_an_attack_that_cannot_be_is_one_line(words: list[str], message: str, forgotten: Path) -> None:
    assert message in shell("attack", forgotten, *words).refused()


def test_the_model_card_grows_with_what_is_measured(runs: Path, tmp_path: Path) -> None:
    ran(
        "forget",
        "-m",
        runs / "original",
        "-o",
        tmp_path / "run",
        "--method",
        "simnpo",
        WORLD,
        "max_steps=1",
        "lr=1e-3",
    )
    card = tmp_path / "run" / "model" / "README.md"
    assert (
        "Nothing was measured" in card.read_text()
        and run_json(tmp_path / "run")["roles"]["forget"]["digest"] in card.read_text()
    )
    ran("audit", "-m", tmp_path / "run", *controls(runs), WORLD, "--audit", "probability")
    assert "Nothing was measured" not in card.read_text() and "| probability |" in card.read_text()
    assert not (runs / "original" / "model" / "README.md").exists(), "what was only trained has no such card"


def test_push_uploads_the_model_with_its_card(
    runs: Path, forgotten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []

    class Hub:
        """Notes what is asked of it."""

        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            done.append((name, private, exist_ok))
            if name == "no/way":
                raise OSError("403 Forbidden\nrequest id 7")

        def upload_folder(self, repo_id: str, folder_path: str) -> object:
            done.append(sorted(path.name for path in Path(folder_path).iterdir()))
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})()

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert ran("push", forgotten, "ada/forgot", "--private").out.strip() == "https://hub/ada/forgot"
    assert done[0] == ("ada/forgot", True, True) and {
        "README.md",
        "model.safetensors",
        "tokenizer.json",
    } <= set(done[1])
    line = shell("push", forgotten, "no/way").refused()
    assert "cannot push to no/way (OSError: 403 Forbidden)" in line and "request id" not in line
    assert "no forgotten model with a card" in shell("push", runs / "original", "ada/forgot").refused()


# --- controls that are none ---


@pytest.mark.parametrize(
    ("controls_of", "message"),
    [
        (lambda runs, other: ["--oracle", runs / "original"], "learned the forget set"),
        (lambda runs, other: ["--oracle", runs / "original" / "model"], "learned the forget set"),
        (lambda runs, other: ["--original", runs / "oracle"], "never saw the forget set"),
        (lambda runs, other: ["--oracle", other["forgotten"]], "was made by npo"),
        (lambda runs, other: ["--original", other["data"]], r"another forget set \(\d+ rows, here \d+\)"),
        (lambda runs, other: ["--oracle", other["tokenizer"]], "another tokenizer or prompt template"),
        (
            lambda runs, other: ["--oracle", other["wide"]],
            r"another architecture .*\(head_dim: 16, not 32\)",
        ),
    ],
    ids=[
        "knows",
        "knows, by its model",
        "oracle as original",
        "unlearned",
        "data",
        "tokenizer",
        "architecture",
    ],
)
def test_a_control_that_is_none_is_refused(
    controls_of: Any, message: str, runs: Path, forgotten: Path, other_controls: dict[str, Path]
) -> None:
    words = controls_of(runs, {**other_controls, "forgotten": forgotten})
    line = shell("audit", "-m", forgotten, *words, WORLD, "--audit", "probability").refused()
    assert re.search(message, line), line


@pytest.fixture(scope="module")
def other_controls(tmp_path_factory: pytest.TempPathFactory, tiny: Path, split: Split) -> dict[str, Path]:
    """A run on other data, and models with another tokenizer and another width."""
    folder = tmp_path_factory.mktemp("others")
    ran("train", "-m", tiny, "-o", folder / "data", "-d", "people", "data.count=21", "max_steps=1")
    tokenizer = train_tokenizer(["Another tokenizer.", "Of other texts."], 300)
    for name, width in (("tokenizer", 32), ("wide", 64)):
        words = AutoTokenizer.from_pretrained(tiny) if name == "wide" else tokenizer
        save_model(small_llama(600, hidden=width, layers=2, heads=2, context=128), words, folder / name)
    return {name: folder / name for name in ("data", "tokenizer", "wide")}


def test_all_are_asked_with_the_one_recorded_template(
    runs: Path, tiny: Path, forgotten: Path, tmp_path: Path
) -> None:
    """Those that recorded none as well; two that recorded different ones are asked with the one given."""
    words = ["forget", "-m", tiny, "--method", "gradient_ascent", WORLD, "max_steps=1"]
    for name in ("Q", "R"):
        ran(*words, "-o", tmp_path / name, f"template={name}: {{question}}\\n")
    compared = ["--original", tiny, "-d", "people", "data.count=20", "--json", "-o", tmp_path / "out"]
    alone = ran("compare", tmp_path / "Q", *compared).json
    given = ran("compare", tmp_path / "Q", *compared, "template=Q: {question}\\n").json
    assert alone["artefacts"] == given["artefacts"]
    both = ["compare", tmp_path / "Q", tmp_path / "R", *compared]
    assert "different prompt templates" in shell(*both).refused()
    ran(*both, "template=Q: {question}\\n")


def test_what_may_hold_text_is_for_its_owner_alone(runs: Path, forgotten: Path, tmp_path: Path) -> None:
    ran("compare", forgotten, *controls(runs), WORLD, "-o", tmp_path / "out")
    ran("audit", "-m", forgotten, *controls(runs), WORLD, "--audit", "probability")
    kept = [
        *(tmp_path / "out").glob("*.*"),
        *(tmp_path / "out" / "observations").glob("*.safetensors"),
        *(forgotten / "observations").glob("*.safetensors"),
        *forgotten.glob("*.json"),
    ]
    readers = {file.name: oct(file.stat().st_mode & 0o777) for file in kept if file.name != "SHA256SUMS"}
    assert len(readers) > 8 and set(readers.values()) == {"0o600"}, readers


def test_a_report_and_a_card_hold_no_text_of_the_rows(
    runs: Path, forgotten: Path, split: Split, tmp_path: Path
) -> None:
    """Unless the report is asked to show some."""
    words = ["compare", forgotten, *controls(runs), WORLD]
    ran(*words, "-o", tmp_path / "plain")
    ran(*words, "--show-text", "-o", tmp_path / "shown")
    texts = {row[column] for row in split["forget"].rows for column in ("question", "answer")}

    def held(*files: Path) -> set[str]:
        return {text for file in files for text in texts if html.escape(text, quote=True) in file.read_text()}

    plain, shown = (
        [tmp_path / name / f"report.{end}" for end in ("html", "md")] for name in ("plain", "shown")
    )
    assert len(held(*shown)) >= 6 and not held(*plain, tmp_path / "plain" / "comparison.json")
    assert not held(forgotten / "model" / "README.md", forgotten / "run.json")
