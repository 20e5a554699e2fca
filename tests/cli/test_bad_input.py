"""Whatever cannot be done is one line on stderr, a code that is not 0, and nothing half-written."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shell import WORLD, ran, shell, weights

from unremember.engine import checkpoint

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
