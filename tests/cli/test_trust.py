"""What files of others ask for: no code of theirs runs, and the line says how to allow it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from shell import WORLD, ran, shell

from unremember.registry import losses

PART = """
from pathlib import Path
from unremember.registry import methods, losses
Path({mark!r}).touch()


@losses.register("hushed")
def hushed(): "Hushed."


def plain(): "A function that is not registered."
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once the module ``strange`` of a folder on the path was imported."""
    (tmp_path / "strange.py").write_text(PART.format(mark=str(tmp_path / "mark")))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "strange", raising=False)
    losses.load()
    monkeypatch.setattr(losses, "entries", dict(losses.entries))
    return tmp_path / "mark"


ASKED: list[dict[str, Any]] = [
    {"method": "strange:plain"},
    {"method": {"name": "strange:plain", "command": "touch x"}},
    {"method": {"name": "npo", "loss": {"name": "strange:hushed"}}},
    {"blend": {"name": "strange:plain"}},
    {"sampling": "strange:plain"},
    {"selection": {"name": "strange:plain"}},
    {"retain_loss": "strange:hushed"},
    {"data": {"name": "strange:plain"}},
    {"settings": {"schedule": ["strange:plain"]}},
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: next(iter(asked)))
@pytest.mark.parametrize("command", ["forget", "train", "plan", "sweep"])
def test_a_file_imports_nothing(
    command: str, asked: dict[str, Any], mark: Path, tiny: Path, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"model": str(tiny), **asked}))
    words = {
        "plan": ["plan", "-c", file],
        "sweep": ["sweep", file, "-o", tmp_path / "run", "sweep.lr=[1e-4,1e-3]"],
    }.get(command, [command, "-c", file, "-o", tmp_path / "run"])
    line = shell(*words).refused()
    assert "names strange:" in line and "--allow-import strange" in line
    assert not mark.exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "os:system"],
        ["--method", "strange:plain"],
        ["--method", "strange:hushed"],
        ["--blend", "strange:hushed"],
        ["-d", "os:system"],
        ["data.name=os:system"],
        ["method={name: 'os:system', command: 'touch x'}"],
    ],
    ids=str,
)
def test_what_is_typed_must_be_a_registered_part_of_its_kind(
    words: list[str], mark: Path, tiny: Path, tmp_path: Path
) -> None:
    line = shell("forget", "-m", tiny, "-o", tmp_path / "run", *words).refused()
    assert "is no registered " in line and ".register(name)" in line and not (tmp_path / "run").exists()


def test_an_allowed_package_is_imported(mark: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"model": str(tiny), "retain_loss": "strange:plain"}))
    words = ["forget", "-c", tmp_path / "run.yaml", "-o", tmp_path / "run", "--allow-import"]
    assert "--allow-import strange" in shell(*words, "strang").refused() and not mark.exists()
    assert "strange:plain is no registered loss" in shell(*words, "strange").refused() and mark.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{question.__class__}", "name of a column"),
        ("{question:>999999999}", "name of a column"),
        ("{question!r}", "name of a column"),
        ("{0}", "name of a column"),
        ("{question", "double a brace"),
        ("{name: chat, tokenize: true}", "template"),
    ],
)
def test_a_template_holds_columns_alone(value: str, message: str, tiny: Path, tmp_path: Path) -> None:
    assert message in shell("forget", "-m", tiny, "-o", tmp_path / "run", f"template={value}").refused()
    assert message in shell("audit", "-m", tiny, f"template={value}").refused()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=.inf"], "lr must be a finite number"),
        (["weight_decay=1e400"], "weight_decay must be a finite number"),
        (["lr=.nan"], "lr must be above 0"),
        (["seed=99999999999999999999"], "seed must be from 0 to 4294967295"),
        (["--method", "task_vector", "method.scale=.nan"], "scale: a finite number is needed"),
    ],
)
def test_numbers_that_are_none(words: list[str], message: str, tiny: Path, tmp_path: Path) -> None:
    assert message in shell("forget", "-m", tiny, "-o", tmp_path / "run", *words).refused()


def test_control_codes_of_others_are_shown_and_not_obeyed(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "red \x1b[31m"
    assert "\x1b" not in shell("audit", "-m", folder).refused()
    audited = ran("audit", "-m", tiny, WORLD, "--audit", "probability")
    assert "audit of" in audited.out
    data = tmp_path / "forget.jsonl"
    data.write_text(json.dumps({"question": "Who \x1b[31m?", "answer": "\x1b]0;title\x07"}) + "\n{")
    assert (
        "\x1b"
        not in shell("forget", "-m", tiny, "-d", "files", f"data.forget={data}", "-o", folder).refused()
    )
