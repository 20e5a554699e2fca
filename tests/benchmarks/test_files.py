"""Your own files, and what every benchmark promises."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pandas
import pytest

from unremember.benchmarks.files import Files
from unremember.benchmarks.people import People
from unremember.data.split import Split
from unremember.errors import ConfigError, DataError
from unremember.registry import benchmarks

ROWS = [{"question": f"q{i}", "answer": f"a{i}", "perturbed_answers": [f"x{i}", f"y{i}"]} for i in range(3)]
TEXTS = [{key: text for key, text in row.items() if isinstance(text, str)} for row in ROWS]


def file_bytes(kind: str) -> bytes:
    """The rows in one format; CSV and TSV hold their texts alone."""
    if kind == "parquet":
        return bytes(pandas.DataFrame(ROWS).to_parquet())
    if kind in ("csv", "tsv"):
        return pandas.DataFrame(TEXTS).to_csv(index=False, sep="," if kind == "csv" else "\t").encode()
    if kind == "jsonl":
        return "\n".join(map(json.dumps, ROWS)).encode()
    return json.dumps(ROWS, indent=2).encode()


@pytest.mark.parametrize("name", ["r.{}", "R.v2.{}", "r.{}.gz"])
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv", "parquet"])
def test_kinds_of_file(kind: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / name.format(kind.upper() if name[0] == "R" else kind)
    file.write_bytes(gzip.compress(file_bytes(kind)) if name.endswith("gz") else file_bytes(kind))
    split = Files({"forget": str(file)}).split()
    assert split["forget"].rows == (TEXTS if kind in ("csv", "tsv") else ROWS)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_cells_are_the_text_as_written(ending: str, tmp_path: Path) -> None:
    answers = ["1931", "0042", "NA", "None", "null", "nan", "True", " 1.50", "1e5", 'say "x"\nto']
    frame = pandas.DataFrame({"question": [f"q{i}" for i in range(len(answers))], "answer": answers})
    frame.to_csv(tmp_path / f"a.{ending}", index=False, sep="," if ending == "csv" else "\t")
    split = Files({"forget": str(tmp_path / f"a.{ending}")}).split()
    assert split["forget"].column("answer") == answers


@pytest.mark.parametrize(
    ("answers", "texts"),
    [
        (pandas.Series([1931, None, 1942]), ["1931", "1942"]),
        (pandas.array([1931, None, 1942], dtype="Int64"), ["1931", "1942"]),
        (pandas.Series([True, None, False], dtype=object), ["True", "False"]),
        (pandas.Series([0.5, None, 2.0]), ["0.5", "2"]),
    ],
)
def test_numbers_of_parquet_beside_a_gap(answers: Any, texts: list[str], tmp_path: Path) -> None:
    """An index, as a filtered table has one, and a date in a column that nothing reads are no matter."""
    frame = pandas.DataFrame({"question": ["a", "b", "c"], "answer": answers, "day": [date(1931, 5, 4)] * 3})
    frame[frame["answer"].notna()].to_parquet(tmp_path / "a.parquet")
    split = Files({"forget": str(tmp_path / "a.parquet")}).split()
    assert split["forget"].column("answer") == texts and len(split.digest) == 64
    assert {*split["forget"].rows[0]} == {"question", "answer", "day"}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"text": "a\u2028b"}\n{"text": "c\x85d"}\r\n\n', [{"text": "a\u2028b"}, {"text": "c\x85d"}]),
        ('{\n "text": "a",\n "id": 3\n}\n', [{"text": "a", "id": 3}]),
        ('\n {"text": "a"} {"text": "b"}', [{"text": "a"}, {"text": "b"}]),
        (
            '[{"question": "q", "answer": "a", "prompt": null, "note": NaN}]',
            [{"question": "q", "answer": "a"}],
        ),
    ],
)
def test_json_as_people_write_it(text: str, rows: list[Any], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(text.encode())
    assert Files({"forget": str(tmp_path / "a.jsonl")}).split()["forget"].rows == rows


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
    with pytest.raises(DataError, match=r"no role of files has a column 'promt': did you mean 'prompt'"):
        Files({"forget": str(tmp_path / "a.csv")}, columns={"promt": "question"}).split()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", "cannot read .txt"),
        ("a", b"x", "a file without an ending"),
        ("a.parquet", b"x", "cannot read"),
        ("a.csv", b"", "cannot read"),
        ("a.csv", b"question,answer\nWho?,Ida,Bo\n", "cannot read"),
        ("a.csv", b"question,answer\nWho?,Ida\nWho?,Ida,Bo\n", "Expected 2 fields in line 3, saw 3"),
        ("a.tsv.gz", b"\x1f\x8bno", "cannot read"),
        ("a.json", b"\xff\xfe", "neither"),
        ("a.json", b'["a"]', "entry 0"),
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"},', "neither .* line 2 column 14"),
        ("a.json", b"[" * 100_000, "neither"),
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


@pytest.mark.parametrize("forget", [float("inf"), float("-inf"), float("nan"), 1e308, 0, 1])
def test_a_share_that_is_none_is_refused(forget: float) -> None:
    with pytest.raises(ConfigError, match=f"forget={re.escape(str(forget))}: of 200 people it must take"):
        People(forget=forget).split()


def test_a_seed_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed=-1: the seed of a world is 0 or more"):
        benchmarks.make({"name": "people", "seed": -1}).split()


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
