"""A package of somebody else's: installed for real, found by entry point; and one that is only importable,
named by its path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "theirs"
version = "1.0"

[project.entry-points]
"unremember.methods" = { theirs = "theirs.parts" }
"unremember.losses" = { theirs = "theirs.parts" }
"unremember.blends" = { theirs = "theirs.parts" }
"unremember.audits" = { theirs = "theirs.measured" }
"unremember.benchmarks" = { theirs = "theirs.measured" }

[tool.setuptools]
packages = ["theirs"]
"""

PARTS = '''
import dataclasses
from typing import ClassVar

from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.tasks.protocol import Need
from unremember.registry import blends, losses, methods


_ABOUT = {"paper": "Their paper", "arxiv": "2601.00001", "fidelity": "paper"}


@methods.register("their_method", needs=("forget", "retain"), **_ABOUT)
def their_method(push: float = 1.0) -> Recipe:
    """Their method."""
    terms = (Term("forget", {"name": "their_loss", "push": push}), Term("retain", "nll"))
    return Recipe(terms=terms, blend="their_blend")


@losses.register("their_loss", needs=("answer",))
@dataclasses.dataclass(frozen=True)
class TheirLoss:
    """Raises the answer's loss."""

    push: float = 1.0
    needs: ClassVar = (Need("answer"),)
    reference_needs: ClassVar = ()
    per: ClassVar = "example"

    def init(self, context):
        return {}

    def apply(self, view, reference, state):
        return self.push * view.read(Need("answer")).sum(), state


@blends.register("their_blend")
def their_blend(share: float = 1.0):
    """Their blend: the plain sum."""
    from unremember.engine.blends.weighted_sum import WeightedSum

    return WeightedSum()
'''

MEASURED = '''
import dataclasses

from unremember.audits.measurement import Measurement
from unremember.data.split import make_split
from unremember.observe.kinds.token_scores import TokenScores
from unremember.registry import audits, benchmarks


@audits.register("their_audit")
@dataclasses.dataclass(frozen=True)
class TheirAudit:
    """Counts the rows that were seen."""

    def requests(self, split):
        return [TokenScores("forget")]

    def measure(self, seen, oracles):
        return Measurement("their_audit", float(len(seen[TokenScores("forget")])), artefact=seen.artefact)


@benchmarks.register("their_benchmark")
@dataclasses.dataclass(frozen=True)
class TheirBenchmark:
    """Rows of their own."""

    rows: int = 4

    def split(self):
        rows = {
            role: [{"question": f"{word} {i}?", "answer": f"{word} answer {i}."} for i in range(self.rows)]
            for role, word in (("forget", "Who"), ("retain", "Where"))
        }
        return make_split(rows, name="theirs")
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with ``theirs`` in it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "theirs").mkdir()
    for name, text in {
        "pyproject.toml": PYPROJECT,
        "theirs/__init__.py": "",
        "theirs/parts.py": PARTS,
        "theirs/measured.py": MEASURED,
    }.items():
        (source / name).write_text(text)
    flags = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        str(target),
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *flags, str(source)],
        check=True,
        capture_output=True,
        text=True,
    )
    return target


RUNNER = """
import contextlib, io, json, sys
from unremember.cli.app import main

found = []
for words in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["unremember", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    found.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


def shell(path: Path, *commands: Sequence[object]) -> list[tuple[int, str, str]]:
    """(code, stdout, stderr) of each command, in one process that has ``path`` on PYTHONPATH."""
    env = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    words = json.dumps([list(map(str, command)) for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], env=env, input=words, capture_output=True, text=True, check=True
    )
    return [tuple(outcome) for outcome in json.loads(done.stdout)]


def train(out: Path, data: str) -> list[object]:
    return ["train", "-d", data, "-o", out, "max_steps=1"]


def forget(original: Path, out: Path, *more: object) -> list[object]:
    return ["forget", "-m", original, "-o", out, *more, "max_steps=2", "lr=1e-3", "batch_size=4"]


def digest(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text())["digests"]["weights"])


@pytest.fixture(scope="module")
def by_name(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with their parts, called by name: original, theirs, pushed; and ours."""
    out = tmp_path_factory.mktemp("runs")
    data = ["-d", "their_benchmark"]
    done = shell(
        site,
        train(out / "original", "their_benchmark"),
        forget(out / "original", out / "theirs", *data, "--method", "their_method"),
        forget(out / "original", out / "pushed", *data, "--method", "their_method", "method.push=9"),
        forget(out / "original", out / "ours", *data, "--method", "gradient_difference"),
        ["audit", "-m", out / "theirs", *data, "data.rows=3", "--audit", "their_audit", "--json"],
        ["methods", "--json"],
        ["audits"],
    )
    assert [code for code, _, _ in done] == [0] * 7, done
    for name, (_, text, _) in zip(("audit.json", "methods.json", "audits.txt"), done[4:]):
        (out / name).write_text(text)
    return out


def test_what_is_installed_is_listed(by_name: Path, tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads((by_name / "methods.json").read_text())}
    theirs = rows["their_method"]
    assert (theirs["summary"], theirs["paper"], theirs["arxiv"]) == (
        "Their method.",
        "Their paper",
        "2601.00001",
    )
    assert (theirs["fidelity"], theirs["needs"]) == ("paper", ["forget", "retain"]) and "npo" in rows
    assert "their_audit" in (by_name / "audits.txt").read_text()
    ((_, out, _),) = shell(tmp_path, ["methods", "--json"])
    assert "their_method" not in out and "npo" in out, "where it is not installed it is not there"


def test_their_parts_run_by_name(by_name: Path) -> None:
    log = [json.loads(line) for line in (by_name / "theirs" / "log.jsonl").read_text().splitlines()]
    assert [sorted(row) for row in log] == [["epoch", "forget/their_loss", "retain/nll", "step"]] * 2 and log[
        0
    ]["forget/their_loss"] < 0
    assert len({digest(by_name / name) for name in ("original", "theirs", "pushed", "ours")}) == 4
    assert [(row["name"], row["value"]) for row in json.loads((by_name / "audit.json").read_text())] == [
        ("their_audit", 3.0)
    ]


def test_their_parts_run_by_import_path(by_name: Path, tmp_path: Path) -> None:
    """The package is importable and not installed: every part is named as package.module:attribute. A file
    may do so only where the command line allows the package, whose code does not run otherwise."""
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "__init__.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    (tmp_path / "loose" / "parts.py").write_text(PARTS)
    (tmp_path / "loose" / "measured.py").write_text(MEASURED)
    (tmp_path / "run.yaml").write_text(
        "data: {name: 'loose.measured:TheirBenchmark', rows: 4}\nblend: 'loose.parts:their_blend'\n"
        "method: {name: 'loose.parts:their_method', push: 9}\n"
    )
    original = by_name / "original"
    ((code, _, line),) = shell(tmp_path, forget(original, tmp_path / "x", "-c", tmp_path / "run.yaml"))
    assert code == 2 and "--allow-import loose" in line and not (tmp_path / "imported").exists()
    run, audited, wrong = shell(
        tmp_path,
        forget(original, tmp_path / "run", "-c", tmp_path / "run.yaml", "--allow-import", "loose"),
        [
            "audit",
            "-m",
            original,
            "-d",
            "loose.measured:TheirBenchmark",
            "--audit",
            "loose.measured:TheirAudit",
            "--json",
        ],
        forget(original, tmp_path / "x", "--method", "loose.parts:nothing"),
    )
    assert run[0] == 0 and digest(tmp_path / "run") == digest(by_name / "pushed"), run
    assert json.loads(audited[1])[0]["value"] == 4.0
    assert (
        wrong[0] == 2
        and "cannot import method 'loose.parts:nothing'" in wrong[2]
        and not (tmp_path / "x").exists()
    )
