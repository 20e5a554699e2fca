"""WMDP with made-up files: published names and fields, pieces, missing files, and that no item is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from unremember import api
from unremember.audits.controls import default_audits
from unremember.benchmarks.wmdp import WMDP, equal_pieces
from unremember.errors import ConfigError, DataError
from unremember.report.comparison import ComparedArtefact, Comparison
from unremember.report.page import write_report
from unremember.runs.compare import sampled_questions

SECRET = "violet"


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Both domains, each file in one of the forms that are read."""
    path = tmp_path / "wmdp"
    path.mkdir()
    questions = [
        {
            "question": f"Which {SECRET} lamp is {i}?",
            "choices": [f"{SECRET} {c}" for c in "wxyz"],
            "answer": i % 4,
        }
        for i in range(5)
    ]
    (path / "bio-forget-corpus.jsonl").write_text(
        lines([{"title": "On lamps", "abstract": "Short.", "text": "one two three four five"}])
    )
    (path / "cyber-forget-corpus.json").write_text(
        json.dumps([{"text": "alpha beta gamma"}, {"text": "delta"}])
    )
    (path / "bio-retain-corpus.jsonl").write_text(lines([{"text": "a kept text"}]))
    (path / "cyber-retain-corpus.jsonl").write_text(lines([{"text": "another kept text"}]))
    (path / "wikitext.jsonl").write_text(
        lines([{"text": text} for text in ("", " = A heading = \n", " The river flows . \n")])
    )
    (path / "bio_questions.json").write_text(json.dumps(questions))
    pandas.DataFrame(questions).to_parquet(path / "cyber_questions.parquet")
    return path


def test_roles_pieces_and_questions(folder: Path) -> None:
    split = WMDP(str(folder), words=4).split()
    texts = [row["text"] for row in split["forget"].rows]
    assert texts == ["On lamps Short. one", "two three four five", "alpha beta gamma", "delta"]
    assert split["forget"].groups() == [
        "bio-forget-corpus 0",
        "bio-forget-corpus 0",
        "cyber-forget-corpus 0",
        "cyber-forget-corpus 1",
    ]
    assert split["retain"].column("answer") == ["The river flows ."], "a document is its own answer"
    for role, subject in (("bio_questions", "biology"), ("cyber_questions", "cybersecurity")):
        rows = split[role].rows
        assert (
            len(rows) == 20
            and [row["turn"] for row in rows[:4]] == [0, 1, 2, 3]
            and rows[4]["entity"] == f"{role.split('_')[0]} 1"
        )
        assert rows[4]["prompt"] == (
            f"The following are multiple choice questions (with answers) about {subject}.\n\n"
            f"Which {SECRET} lamp is 1?\nA. {SECRET} w\nB. {SECRET} x\nC. {SECRET} y\nD. {SECRET} z\nAnswer:"
        )
        for row in rows:
            shown = row["prompt"].split("\n")[-5 + row["gold"]]
            number = int(row["entity"].split()[1])
            assert (
                shown == f"{'ABCD'[row['gold']]}. {SECRET} {'wxyz'[number % 4]}"
                and row["answer"] == row["letters"][row["gold"]]
            )


def test_domains_retain_and_count(folder: Path) -> None:
    split = WMDP(str(folder), domains=["cyber"], retain="domain", count=1).split()
    assert [row["text"] for row in split["forget"].rows] == ["alpha beta gamma"] and set(split.roles) == {
        "forget",
        "retain",
        "cyber_questions",
    }
    assert [row["text"] for row in split["retain"].rows] == [
        "another kept text"
    ] and split.name == "wmdp cyber"


def test_the_split_names_its_audits(folder: Path) -> None:
    named = {
        (type(a).__name__, getattr(a, "task", getattr(a, "role", "")), a.higher_is)
        for a in default_audits(WMDP(str(folder)).split())
    }
    assert named == {
        *(("MultipleChoice", f"{d}_questions", "more_knowledge") for d in ("bio", "cyber")),
        *(("LmEval", f"wmdp_{d}", "more_knowledge") for d in ("bio", "cyber")),
        *(
            ("LmEval", t, "better_utility")
            for t in (
                "mmlu",
                "mmlu_college_biology",
                "mmlu_virology",
                "mmlu_college_computer_science",
                "mmlu_computer_security",
            )
        ),
    }
    assert {type(a).__name__ for a in default_audits(WMDP(str(folder), lm_eval=False).split())} == {
        "MultipleChoice"
    }


def test_what_is_not_in_the_folder_comes_from_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the missing file is asked for, under its published name; the gated one says how it is had."""
    requests = []

    def load(path: str, name: str | None, split: str) -> list[dict[str, Any]]:
        requests.append((path, name, split))
        if "bio-forget" in path:
            raise ConnectionError("401")
        return [{"text": "a text from the hub"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    (folder / "wikitext.jsonl").unlink()
    assert WMDP(str(folder)).split()["retain"].rows[0]["text"] == "a text from the hub"
    assert requests == [("Salesforce/wikitext", "wikitext-2-raw-v1", "train")]
    (folder / "bio-forget-corpus.jsonl").unlink()
    with pytest.raises(
        DataError,
        match=r"ask for access to cais/wmdp-bio-forget-corpus and log in, "
        r"or put bio-forget-corpus\.jsonl into a folder",
    ):
        WMDP(str(folder)).split()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("bio-forget-corpus.jsonl", {"body": "x"}, "no 'text' in 1 of 1 rows; its columns are: body"),
        (
            "bio_questions.json",
            {"question": "?", "choices": ["a", "b", "c"], "answer": 0},
            "bio: row 0 is not a question with four choices",
        ),
        (
            "bio_questions.json",
            {"question": "?", "choices": ["a", "b", "c", "d"], "answer": 4},
            "an answer from 0 to 3",
        ),
        ("bio_questions.json", {"question": "?", "choices": "abcd", "answer": 1}, "bio: row 0"),
    ],
)
def test_a_file_of_another_form_is_one_line(folder: Path, file: str, content: Any, message: str) -> None:
    (folder / file).write_text(lines([content]))
    with pytest.raises(DataError, match=message) as caught:
        WMDP(str(folder)).split()
    assert "\n" not in str(caught.value)


def test_parameters_that_cannot_be(folder: Path) -> None:
    with pytest.raises(ConfigError, match="words"):
        WMDP(str(folder), words=0)
    with pytest.raises(ConfigError, match="domain"):
        WMDP(str(folder), domains=[])
    with pytest.raises(DataError, match="no folder"):
        WMDP(str(folder / "nowhere"))


@pytest.mark.parametrize(("count", "words"), [(1, 3), (3, 3), (4, 3), (7, 3), (12, 5)])
def test_pieces_lose_no_word_and_are_even(count: int, words: int) -> None:
    cut = equal_pieces(" ".join(map(str, range(count))), words)
    sizes = [len(piece.split()) for piece in cut]
    assert (
        " ".join(cut).split() == list(map(str, range(count)))
        and max(sizes) <= words
        and max(sizes) - min(sizes) <= 1
    )


def test_no_item_is_ever_shown(folder: Path, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Neither the comparison, nor its report, nor an error about a long text holds a word of a question."""
    split = WMDP(str(folder), lm_eval=False).split()
    assert sampled_questions(split) == []
    artefact = api.load(model, tokenizer)
    with pytest.raises(DataError, match="longer than the model's context") as caught:
        api.audit(artefact, split, quiet=True)
    assert SECRET not in str(caught.value)
    model.config.max_position_embeddings = 512
    measurements = api.audit(api.load(model, tokenizer), split, quiet=True)
    comparison = Comparison(
        "x", (ComparedArtefact("m", "unlearned", "rmu", "d", tuple(m.row() for m in measurements)),)
    )
    comparison.save(tmp_path / "comparison.json")
    write_report(comparison, tmp_path / "report.html")
    assert [m.name for m in measurements] == [
        "multiple_choice bio_questions",
        "multiple_choice cyber_questions",
    ] and measurements[0].n == 20
    assert SECRET in split["bio_questions"].rows[0]["prompt"]
    assert not any(
        SECRET in file.read_text() for file in (tmp_path / "comparison.json", tmp_path / "report.html")
    )
