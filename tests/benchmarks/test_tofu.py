"""TOFU from a folder: small files made here, and the published ones where they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from unremember.benchmarks.tofu import TOFU
from unremember.errors import DataError, UnrememberError
from unremember.worlds.refusals import REFUSALS


def rows(name: str, authors: int, extra: bool) -> list[dict[str, Any]]:
    published = []
    for i in range(20 * authors):
        row: dict[str, Any] = {"question": f"What is fact {i} of {name}?", "answer": f"Fact {i} of {name}."}
        if extra:
            wrong = [f"Wrong {k} on {i}." for k in range(5)]
            row |= {
                "perturbed_answer": wrong,
                "paraphrased_answer": f"It is fact {i}.",
                "paraphrased_question": "?",
            }
        published.append(row)
    return published


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """TOFU's shape with two authors to forget and three to keep, where two rows of an author ask the same."""
    retain = rows("retain", 3, False)
    retain[45]["question"] = retain[5]["question"]
    files = {
        "forget01": rows("forget", 2, False),
        "forget01_perturbed": rows("forget", 2, True),
        "retain99": retain,
        "retain_perturbed": [
            {**row, "perturbed_answer": ["a", "b"], "paraphrased_answer": "c"}
            for row in (retain[45], retain[3])
        ],
        "real_authors_perturbed": [{"question": "q", "answer": "a", "perturbed_answer": ["x", "y", "z"]}],
        "world_facts_perturbed": [{"question": "w", "answer": "a", "perturbed_answer": ["x", "y", "z"]}],
    }
    for name, listed in files.items():
        (tmp_path / f"{name}.json").write_text(
            json.dumps(listed) if name != "retain99" else "\n".join(map(json.dumps, listed)) + "\n\n"
        )
    return tmp_path


def test_a_small_folder(folder: Path) -> None:
    split = TOFU(str(folder), "forget01").split()
    assert {name: len(role) for name, role in split.roles.items()} == {
        "forget": 40,
        "retain": 60,
        "retain_eval": 2,
        "real_authors": 1,
        "world_facts": 1,
    }
    assert split.utility == ("retain_eval", "real_authors", "world_facts") and split.name == "tofu forget01"
    first = split["forget"].rows[0]
    assert (
        first["perturbed_answers"] == [f"Wrong {k} on 0." for k in range(5)]
        and "perturbed_answer" not in first
    )
    assert first["answer"] == "Fact 0 of forget." and first["paraphrased_answer"] == "It is fact 0."
    assert [row["alternate"] for row in split["forget"].rows] == [
        REFUSALS[i % len(REFUSALS)] for i in range(40)
    ]
    assert Counter(split["forget"].groups()) == {"forget author 0": 20, "forget author 1": 20}
    assert Counter(split["retain"].groups()) == {f"retain author {i}": 20 for i in range(3)}
    assert split["retain_eval"].groups() == ["retain author 2", "retain author 0"], (
        "by question and answer: a question may be asked of two"
    )
    assert split["real_authors"].groups() == ["real_authors 0"]


def test_the_holdout_is_there_where_its_file_is(folder: Path) -> None:
    (folder / "holdout01.json").write_text(json.dumps(rows("holdout", 1, False)))
    assert len(TOFU(str(folder), "forget01").split()["holdout"]) == 20


@pytest.mark.parametrize(
    "name",
    [
        "forget01",
        "forget01_perturbed",
        "retain99",
        "retain_perturbed",
        "real_authors_perturbed",
        "world_facts_perturbed",
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / f"{name}.json").unlink()
    with pytest.raises(DataError, match=rf"{name}\.json is missing.*its JSON files: .*\.json"):
        TOFU(str(folder), "forget01").split()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("forget01", lambda r: r.pop("answer"), "'forget01' has no 'answer' in 1 of 40"),
        ("retain99", lambda r: r.pop("question"), "'question'"),
        ("forget01_perturbed", lambda r: r.pop("perturbed_answer"), "'perturbed_answer' in 1 of 40"),
        (
            "forget01_perturbed",
            lambda r: r.update(question="Another?"),
            "1 of 40 rows are not in forget01_perturbed",
        ),
        (
            "forget01",
            lambda r: r.update(question="What is fact 0 of retain?", answer="Fact 0 of retain."),
            "not in forget01_perturbed",
        ),
    ],
    ids=["no answer", "no question", "no wrong answers", "another question", "a retain row"],
)
def test_files_that_do_not_fit(folder: Path, name: str, change: Any, message: str) -> None:
    text = (folder / f"{name}.json").read_text()
    listed = (
        json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line]
    )
    change(listed[0])
    (folder / f"{name}.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match=message):
        TOFU(str(folder), "forget01").split()


def test_what_is_no_tofu(folder: Path) -> None:
    with pytest.raises(UnrememberError, match="no forget set 'forget1': did you mean 'forget10'"):
        TOFU(str(folder), "forget1").split()
    with pytest.raises(DataError, match=r"forget10\.json is missing"):
        TOFU(str(folder)).split()
    with pytest.raises(DataError, match="no folder"):
        TOFU(str(folder / "nowhere")).split()


@pytest.mark.parametrize(
    ("forget", "counts"),
    [("forget01", (40, 3960, 40)), ("forget05", (200, 3800, 200)), ("forget10", (400, 3600, 400))],
)
def test_the_published_files(data_folder: Path, forget: str, counts: tuple[int, int, int]) -> None:
    split = TOFU(str(data_folder / "tofu"), forget).split()
    assert tuple(len(split[role]) for role in ("forget", "retain", "holdout")) == counts
    assert tuple(len(split[role]) for role in split.utility) == (400, 100, 117)
    assert {
        len(row["perturbed_answers"]) for role in ("forget", "retain_eval") for row in split[role].rows
    } == {5}
    assert {
        len(row["perturbed_answers"]) for role in ("real_authors", "world_facts") for row in split[role].rows
    } == {3}
    assert all(row["paraphrased_answer"] for role in ("forget", "retain_eval") for row in split[role].rows)
    plain = json.loads((data_folder / "tofu" / f"{forget}.json").read_text())
    assert [(r["question"], r["answer"]) for r in split["forget"].rows] == [
        (r["question"], r["answer"]) for r in plain
    ]
    for role in ("forget", "retain"):
        assert (
            set(Counter(split[role].groups()).values()) == {20}
            and len(set(split[role].groups())) == len(split[role]) // 20
        )
    assert set(split["retain_eval"].groups()) <= set(split["retain"].groups()), (
        "each question is grouped with its author"
    )
    whose = {(row["question"], row["answer"]): row["entity"] for row in split["retain"].rows}
    assert all(whose[row["question"], row["answer"]] == row["entity"] for row in split["retain_eval"].rows)
    assert {row["alternate"] for row in split["forget"].rows} <= set(REFUSALS)
