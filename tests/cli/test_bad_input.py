"""Whatever cannot be done is one line on stderr, a code that is not 0, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shell import WORLD, ran, shell, weights

from unremember.audits.measurement import Measurement
from unremember.data.split import Split
from unremember.engine import checkpoint
from unremember.files import write_recorded
from unremember.report.comparison import Comparison

FORGET = ["max_steps=2", "batch_size=4", "lr=1e-3"]
Files = Callable[..., list[str]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Write a JSON file a role; gives the words that name them."""

    def write(**roles: list[dict[str, Any]]) -> list[str]:
        for role, rows in roles.items():
            (tmp_path / f"{role}.json").write_text(json.dumps(rows))
        return ["-d", "files", *(f"data.roles.{role}={tmp_path / role}.json" for role in roles)]

    return write


def rows(count: int, start: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"What is thing {i}?", "answer": f"Thing {i} is a lamp.", **more}
        for i in range(start, start + count)
    ]


def refused(out: Path, *words: Any) -> str:
    """The line; the run folder is not there."""
    line = shell("forget", "-o", out, *words, *FORGET).refused()
    assert not out.exists(), sorted(out.rglob("*"))
    return line


# --- data ---


def test_a_missing_column_names_those_there_are(tiny: Path, files: Files, tmp_path: Path) -> None:
    words = files(forget=[{"question": "Who?", "reply": "Ida."}], retain=rows(3))
    line = refused(tmp_path / "run", "-m", tiny, *words)
    assert "'answer'" in line and "question, reply" in line and "'forget'" in line
    half = files(forget=[*rows(2), {"question": "And?"}], retain=rows(3, 5))
    assert "1 of 3" in refused(tmp_path / "run", "-m", tiny, *half)


def test_a_renamed_column_that_is_not_there_names_the_nearest(
    tiny: Path, files: Files, tmp_path: Path
) -> None:
    words = files(
        forget=[{"prompt": "Who?", "answer": "Ida."}], retain=[{"prompt": "Where?", "answer": "There."}]
    )
    assert "did you mean 'prompt'" in refused(
        tmp_path / "run", "-m", tiny, *words, "data.columns.promt=question"
    )
    ran("forget", "-o", tmp_path / "run", "-m", tiny, *words, "data.columns.prompt=question", *FORGET)


def test_an_empty_cell_is_not_the_text_nan(tiny: Path, files: Files, tmp_path: Path) -> None:
    (tmp_path / "forget.csv").write_text("question,answer\nWho?,Ida.\nWhere?,\n")
    words = [*files(retain=rows(3)), f"data.roles.forget={tmp_path / 'forget.csv'}"]
    assert "'answer' in 1 of 2 rows" in refused(tmp_path / "run", "-m", tiny, *words)


def test_empty_and_overlapping_sets(tiny: Path, files: Files, tmp_path: Path) -> None:
    assert "forget.json holds no rows" in refused(
        tmp_path / "run", "-m", tiny, *files(forget=[], retain=rows(3))
    )
    both = files(forget=rows(2, 1), retain=rows(3))
    assert "2 rows stand both in 'forget' and in 'retain'" in refused(tmp_path / "run", "-m", tiny, *both)


def test_a_role_or_a_file_that_is_not_there(tiny: Path, files: Files, tmp_path: Path) -> None:
    words = files(forget=rows(2))
    assert "role 'retain' (the roles are forget)" in refused(tmp_path / "run", "-m", tiny, *words)
    assert "retain.csv" in refused(
        tmp_path / "run", "-m", tiny, *words, f"data.roles.retain={tmp_path}/retain.csv"
    )
    assert "no role 'utilty'" in refused(tmp_path / "run", "-m", tiny, *words, "data.utility=[utilty]")
    assert "roles: Input should be a valid dictionary, not 'forget.json'" in refused(
        tmp_path / "run", "-m", tiny, "-d", "files", "data.roles=forget.json"
    )
    assert (
        "did you mean 'forget'"
        in shell("train", "-m", tiny, "-o", tmp_path / "run", WORLD, "--without", "forgt").refused()
    )


@pytest.mark.parametrize("text", ["[1, 2]", "[]", "{", "no json", '{"a": 1}\n[2]'])
def test_a_file_that_is_no_table(text: str, tiny: Path, files: Files, tmp_path: Path) -> None:
    words = files(retain=rows(2))
    (tmp_path / "forget.json").write_text(text)
    assert "forget.json" in refused(
        tmp_path / "run", "-m", tiny, *words, f"data.roles.forget={tmp_path}/forget.json"
    )


def test_a_sequence_longer_than_the_context_is_counted(tiny: Path, files: Files, tmp_path: Path) -> None:
    long = [{"question": question, "answer": "a lamp " * 200} for question in ("Who?", "Where?")]
    line = refused(tmp_path / "run", "-m", tiny, *files(forget=[*rows(3), *long], retain=rows(2, 9)))
    assert "2 of 5 texts" in line and "128 tokens" in line


def test_a_prompt_that_is_no_prefix(tiny: Path, tmp_path: Path) -> None:
    line = refused(tmp_path / "run", "-m", tiny, WORLD, "template={question} ")
    assert "prefix" in line and "line break" in line
    assert "needs the column 'quest'" in refused(tmp_path / "run", "-m", tiny, WORLD, "template={quest}")


# --- names ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "npoo"], "unknown method 'npoo': did you mean 'npo'"),
        (["--blend", "pcgard"], "unknown blend 'pcgard': did you mean 'pcgrad'"),
        (["--sampling", "paird"], "unknown sampling 'paird': did you mean 'paired'"),
        (["--selection", "loar"], "unknown selection 'loar': did you mean 'lora'"),
        (["-d", "tufo"], "unknown benchmark 'tufo': did you mean 'tofu'"),
        (["epoch=2"], "unknown key 'epoch': did you mean 'epochs'"),
        (["method.bta=2"], "npo has no parameter 'bta': did you mean 'beta'"),
        (["data.cuont=2"], "people has no parameter 'cuont': did you mean 'count'"),
        (["selection.rnk=2", "--selection", "lora"], "lora has no parameter 'rnk': did you mean 'rank'"),
        (["epochs=0"], "epochs must be above 0"),
        (["--selection", "layers", "selection.layers=[7]"], "2 blocks"),
        (["blend.beta=1"], "a blend needs a name"),
        (["--method", "no.such:thing"], "cannot import method 'no.such:thing'"),
        (["data.forget=0"], "forget=0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_unknown_name_tells_the_nearest(
    words: list[str], message: str, tiny: Path, tmp_path: Path
) -> None:
    flags = [word for word in words if "=" not in word]
    assert message in refused(
        tmp_path / "run", "-m", tiny, *flags, WORLD, *(word for word in words if "=" in word)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.gamma=-1"], "weight of the forget term must be 0 or above, not -1"),
        (["method.alpha=-1"], "weight of the retain term must be 0 or above, not -1"),
        (["--method", "undial", "method.beta=-1"], "beta must be 0 or above"),
        (["--method", "klue", "method.mismatched=-1"], "mismatched must be 0 or above"),
        (["--method", "gu", "method.base=-1"], "-1 is no loss"),
        (["--blend", "ofmu", "blend.outer_steps=-1"], "outer_steps must be 0 or above"),
        (["--sampling", "cyclic", "sampling.relations=[]"], "relations is empty"),
        (["--selection", "lora", "selection.rank=0"], "rank must be above 0, not 0"),
        (["--selection", "lora", "selection.alpha=0"], "alpha must be above 0, not 0"),
        (["--selection", "lora", "selection.dropout=1"], "dropout=1.0"),
        (["--selection", "lora", "selection.targets=[nope]"], "'nope'"),
        (["--selection", "layers", "selection.modules='('"], "no regular expression"),
        (["only=[forget]"], "does not use only"),
        (["lr=" + "[" * 5000], "cannot read the value of lr"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_a_value_that_contradicts_itself(words: list[str], message: str, tiny: Path, tmp_path: Path) -> None:
    flags = [word for word in words if "=" not in word]
    keys = [word for word in words if "=" in word]
    assert message in refused(tmp_path / "run", "-m", tiny, *flags, WORLD, *keys)


@pytest.mark.parametrize(
    ("attack", "key", "message"),
    [
        ("quantisation", "bits=[]", "bits must list one or more numbers from 2 to 32"),
        ("quantisation", "bits=[1]", "not [1]"),
        ("quantisation", "bits=[16] attack.by=torchao", "from 2 to 8, not [16]"),
        ("pruning", "shares=[2]", "shares must list one or more numbers from 0 to 1, not [2.0]"),
        ("prefix", "shares=[]", "shares must list one or more numbers"),
        ("few_shot", "shots=[-1]", "shots must list one or more numbers, 0 or above"),
        ("relearning", "steps=0", "steps must be above 0, not 0"),
        ("relearning", "points=0", "points must be above 0, not 0"),
        ("relearning", "lr=-1", "lr must be above 0"),
    ],
)
def test_an_attack_without_a_budget(attack: str, key: str, message: str, tiny: Path) -> None:
    words = f"attack.{key}".split()
    assert message in shell("attack", tiny, "--attack", attack, *words, WORLD).refused()


def test_a_training_run_that_would_learn_nothing(tiny: Path, split: Split, tmp_path: Path) -> None:
    words = ["train", "-m", tiny, "-o", tmp_path / "run", WORLD, *FORGET]
    everything = [word for role in split.roles for word in ("--without", role)]
    assert "nothing to train on" in shell(*words, *everything).refused()
    assert "nothing to train on" in shell(*words, "--only", "forget", "--without", "forget").refused()
    assert not (tmp_path / "run").exists()


def test_train_trains_adapters_where_they_are_selected(tiny: Path, tmp_path: Path) -> None:
    ran("train", "-m", tiny, "-o", tmp_path / "run", WORLD, "selection={name: lora, rank: 2}", *FORGET)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny, tmp_path / "run" / "model"))
    moved = {
        name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])
    }
    assert moved and all("_proj" in name for name in moved), "linear layers of the blocks alone"
    assert all(torch.linalg.matrix_rank(change, rtol=1e-3) <= 2 for change in moved.values())


def test_unknown_names_elsewhere(tiny: Path, tmp_path: Path) -> None:
    assert "did you mean 'rouge'" in shell("audit", "-m", tiny, WORLD, "--audit", "roge").refused()
    assert (
        "did you mean 'npo'"
        in shell(
            "benchmark", "people", WORLD, "--original", tiny, "-o", tmp_path / "b", "--method", "npoo"
        ).refused()
    )
    assert (
        "did you mean 'people'"
        in shell("benchmark", "peple", "--original", tiny, "-o", tmp_path / "b").refused()
    )
    assert "needs --original" in shell("benchmark", "people", "-o", tmp_path / "b").refused()
    assert "forget needs --model" in shell("forget", "-o", tmp_path / "b").refused()
    assert "is not a comparison" in shell("report", tmp_path).refused()
    assert not (tmp_path / "b").exists()


# --- models ---


def test_a_model_folder_that_cannot_be_used(tiny: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny, bare, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    assert "no tokenizer" in refused(tmp_path / "run", "-m", bare, WORLD)
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({}, pickled / "pytorch_model.bin")
    line = refused(tmp_path / "run", "-m", pickled, WORLD)
    assert "pickle" in line and "save_pretrained" in line
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    assert str(broken) in refused(tmp_path / "run", "-m", broken, WORLD)
    assert "no model folder" in refused(tmp_path / "run", "-m", tmp_path / "nowhere", WORLD)
    assert str(broken) in shell("audit", "-m", broken, WORLD).refused()


def test_a_run_that_is_not_finished_is_no_model(tiny: Path, tmp_path: Path) -> None:
    ran("train", "-m", tiny, "-o", tmp_path / "run", WORLD, *FORGET)
    shutil.rmtree(tmp_path / "run" / "model")
    assert "is not finished" in shell("audit", "-m", tmp_path / "run", WORLD).refused()
    (tmp_path / "run" / "run.json").write_text("{")
    assert "run.json is corrupt" in shell("audit", "-m", tmp_path / "run", WORLD).refused()


# --- folders and files ---


@pytest.mark.parametrize("command", ["forget", "train"])
def test_a_folder_of_other_things_is_left_alone(command: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("Years of work.")
    words = [command, "-m", tiny, WORLD, *FORGET]
    assert "is not empty and holds no run (it has thesis.tex)" in shell(*words, "-o", tmp_path).refused()
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    assert "is a file" in shell(*words, "-o", tmp_path / "thesis.tex").refused()


def test_a_folder_that_a_run_left_before_its_record_is_taken(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  run.json\n")
    ran("forget", "-m", tiny, "-o", tmp_path, WORLD, *FORGET)


@pytest.mark.parametrize(
    "words",
    [
        ["forget", "-m", "{tiny}", "-o", "{long}"],
        ["train", "-o", "{long}"],
        ["forget", "-m", "{long}", "-o", "run"],
        ["compare", "{long}", "-o", "run"],
        ["attack", "{long}"],
        ["report", "{long}"],
    ],
    ids=" ".join,
)
def test_a_name_that_is_too_long(words: list[str], tiny: Path, tmp_path: Path) -> None:
    named = [word.format(tiny=tiny, long=tmp_path / ("n" * 300)) for word in words]
    line = shell(*named, *([WORLD] if words[0] != "report" else [])).refused()
    assert "n" * 300 in line and not Path("run").exists()


def test_the_same_model_twice_is_no_comparison(runs: Path, tmp_path: Path) -> None:
    words = ["compare", runs / "original", "-o", tmp_path / "out", WORLD]
    assert "are the same model" in shell(*words, runs / "original").refused()
    assert "are the same model" in shell(*words, runs / "original" / "model").refused()
    oracles = ["--oracle", runs / "oracle", "--oracle", f"{runs}/../{runs.name}/oracle"]
    assert "are the same oracle" in shell(*words, *oracles).refused()


def test_a_report_that_cannot_be_written(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "inner"):
        assert "file is a file: choose another" in shell("compare", tiny, "-o", out, WORLD).refused()
    Comparison("A comparison", ()).save(tmp_path / "comparison.json")
    (tmp_path / "report.html").mkdir()
    assert "cannot write" in shell("report", tmp_path).refused()


def test_a_read_only_folder_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    line = shell("compare", tmp_path / "no model", "-o", tmp_path / "out", WORLD).refused()
    assert f"{tmp_path} is read-only: choose another --out" in line


def test_json_that_is_nested_too_deeply(tiny: Path, tmp_path: Path) -> None:
    for name in ("comparison.json", "run.json", "rows.json", "run.yaml"):
        write_recorded(tmp_path / name, b"[" * 100_000)
    assert "comparison.json is not a comparison" in shell("report", tmp_path).refused()
    assert "run.json" in shell("forget", "-m", tiny, "-o", tmp_path, WORLD).refused()
    keys = ["-d", "files", f"data.roles.forget={tmp_path}/rows.json"]
    assert "rows.json" in shell("forget", "-m", tiny, "-o", tmp_path / "run", *keys).refused()
    line = shell("forget", "-c", tmp_path / "run.yaml", "-o", tmp_path / "run").refused()
    assert "run.yaml" in line


@pytest.mark.parametrize("changes", [{"extra": None}, {"controls": []}, {"name": None, "extra": []}])
def test_a_comparison_with_other_measurements(changes: dict[str, Any], tmp_path: Path) -> None:
    row = {**Measurement("probability", 0.5).row(), **changes}
    write_comparison(tmp_path, row)
    assert "comparison.json is not a comparison" in shell("report", tmp_path).refused()


def test_a_measurement_without_further_figures_is_reported(tmp_path: Path) -> None:
    row = Measurement("forget_quality", 0.5, verdict="indistinguishable").row()
    write_comparison(tmp_path, {name: value for name, value in row.items() if name != "extra"})
    ran("report", tmp_path)
    assert "forget" in (tmp_path / "report.html").read_text()


def write_comparison(folder: Path, row: dict[str, Any]) -> None:
    """Write comparison.json of one model with one row."""
    artefact = {"name": "npo", "kind": "unlearned", "method": "npo", "digest": "", "measurements": [row]}
    tree = {"title": "A comparison", "artefacts": [artefact]}
    write_recorded(folder / "comparison.json", json.dumps(tree).encode())


# --- what the shell gives ---

COMMAND = [sys.executable, "-m", "unremember"]


def test_output_that_the_terminal_cannot_show_is_replaced() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "methods"], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"") and b"npo" in done.stdout and done.stdout.isascii()


def test_output_that_cannot_be_written_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "methods", "--json"], stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1) and b"No space left" in done.stderr


@pytest.mark.parametrize("module", ["typer", "torch"])
def test_ctrl_c_during_imports_is_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    words = ["train", "-o", str(tmp_path / "run"), WORLD]
    done = subprocess.run([*COMMAND, *words], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (130, "", 1)
    assert done.stderr.startswith("unremember: interrupted")


# --- while it runs ---


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    runs: Path, tmp_path: Path
) -> None:
    words = [
        "forget",
        "-m",
        runs / "original",
        "-o",
        tmp_path / "run",
        "--method",
        "gradient_ascent",
        WORLD,
        "epochs=20",
        "batch_size=4",
        "clip=0",
        "lr=1e30",
        "weight_decay=0",
        "warmup=0",
        "checkpoint_seconds=0",
    ]
    line = shell(*words).refused()
    assert "not finite" in line and not (tmp_path / "run" / "model").exists()
    flat = checkpoint.latest_checkpoint(tmp_path / "run" / "checkpoint")
    assert flat is not None
    kept = [value for key, value in flat.items() if key.startswith("phases/0/weights/")]
    assert kept and all(torch.isfinite(value).all() for value in kept)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, int(flat["position"]) + 1))
    assert shell(*words).refused() == line, "the same command meets the same end"


@pytest.mark.parametrize(
    "place",
    [
        "unremember.engine.checkpoint.save_file",
        "unremember.engine.checkpoint.Path.write_text",
        "transformers.PreTrainedModel.save_pretrained",
    ],
)
def test_a_full_disk_is_said_and_the_same_command_goes_on(
    place: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["forget", "-m", tiny, WORLD, *FORGET]
    ran(*words, "-o", tmp_path / "calm")

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        line = shell(*words, "-o", tmp_path / "run").refused()
    assert ("full" in line or "No space left" in line) and "MB free" in line and "same command" in line
    assert not (tmp_path / "run" / "model").exists() and not list(tmp_path.rglob("*.tmp"))
    ran(*words, "-o", tmp_path / "run")
    assert weights(tmp_path / "calm") == weights(tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_an_error_nobody_foresaw_is_one_line_too(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("unremember.engine.loop.run_phases", broken)
    outcome = shell("forget", "-m", tiny, "-o", tmp_path / "run", WORLD)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (
        1,
        "",
        1,
    ) and "RuntimeError: two lines" in outcome.err
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("UNREMEMBER_TRACE", "1")
    with pytest.raises(RuntimeError):
        shell("forget", "-m", tiny, "-o", tmp_path / "run", WORLD)
