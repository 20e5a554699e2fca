"""Your own files, and what every benchmark promises."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from unremember.benchmarks.files import Files
from unremember.data.split import Split
from unremember.errors import ConfigError, DataError
from unremember.registry import benchmarks

ROWS = [{"question": f"q{i}", "answer": f"a{i}", "perturbed_answers": [f"x{i}", f"y{i}"]} for i in range(3)]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_four_kinds_of_file(kind: str, tmp_path: Path) -> None:
    file, plain = (
        tmp_path / f"rows.{kind}",
        [{k: v for k, v in row.items() if kind != "csv" or isinstance(v, str)} for row in ROWS],
    )
    if kind == "json":
        file.write_text(json.dumps(plain))
    elif kind == "jsonl":
        file.write_text("\n".join(map(json.dumps, plain)))
    else:
        frame = pandas.DataFrame(plain)
        frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    split = Files({"forget": str(file)}).split()
    assert [dict(row) for row in split["forget"].rows] == plain
    assert all(isinstance(row.get("perturbed_answers", []), list) for row in split["forget"].rows)


def test_columns_and_utility(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,answer,note\nWho?,Ida,\nWhere?,,here\n")
    split = Files(
        {"forget": str(tmp_path / "a.csv")}, columns={"prompt": "question"}, utility=["forget"]
    ).split()
    assert [dict(row) for row in split["forget"].rows] == [
        {"question": "Who?", "answer": "Ida"},
        {"question": "Where?", "note": "here"},
    ]
    assert split.utility == ("forget",)
    with pytest.raises(DataError, match="no role 'forgte'"):
        Files({"forget": str(tmp_path / "a.csv")}, utility=["forgte"]).split()
    with pytest.raises(DataError, match=r"no column 'promt'.*did you mean 'prompt'"):
        Files({"forget": str(tmp_path / "a.csv")}, columns={"promt": "question"}).split()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", "cannot read .txt"),
        ("a", b"x", "a file without an ending"),
        ("a.parquet", b"x", "cannot read"),
        ("a.csv", b"", "cannot read"),
        ("a.json", b"\xff\xfe", "neither"),
        ("a.json", b'["a"]', "entry 0"),
        ("a.jsonl", b"", "holds no rows"),
        ("none.json", None, "no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        Files({"forget": str(tmp_path / name)}).split()
    assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"data\.roles\.forget"):
        Files("forget.json").split()  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", benchmarks.all(), ids=benchmarks.names())
def test_a_benchmark_keeps_the_contract(entry: Any) -> None:
    """A frozen dataclass of plain parameters whose ``split()`` gives a Split, the same each time."""
    assert (
        dataclasses.is_dataclass(entry.make)
        and entry.make.__dataclass_params__.frozen
        and callable(entry.make.split)
    )
    assert entry.summary.endswith((".", "``.")) and bool(entry.arxiv) == bool(entry.paper)


def test_the_generated_world_takes_its_parameters() -> None:
    benchmark = benchmarks.make({"name": "people", "count": 20, "forget": 0.2, "seed": 3})
    split = benchmark.split()
    assert (
        isinstance(split, Split)
        and split.digest
        == benchmarks.make({"name": "people", "count": 20, "forget": 0.2, "seed": 3}).split().digest
    )
    assert split.digest != benchmarks.make({"name": "people", "count": 20, "forget": 0.2}).split().digest
    assert len(set(split["forget"].groups())) == 4
