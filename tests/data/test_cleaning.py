"""Rows as people have them: what a cell becomes, what is said, and what is refused."""

from __future__ import annotations

import datetime
import decimal
import warnings
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from unremember.data.split import make_split
from unremember.errors import DataError

ASKED = {"question": "What does Ann do?", "answer": "Ann bakes."}
NULLS = [None, float("nan"), np.float32("nan"), pandas.NA, pandas.NaT]


def clean(row: dict[str, Any], **columns: str) -> dict[str, Any]:
    """The row as a split holds it."""
    return dict(make_split({"forget": [row]}, columns=columns)["forget"].rows[0])


@pytest.mark.parametrize("null", NULLS, ids=repr)
def test_a_null_is_no_cell(null: Any) -> None:
    assert clean({**ASKED, "prompt": null, "note": null}) == ASKED
    assert clean({"question": null, "answer": null, "text": "Doc a"}) == {"text": "Doc a"}


def test_documents_beside_null_questions_differ() -> None:
    row = {"question": None, "answer": None}
    split = make_split({"forget": [{**row, "text": "Doc a"}], "retain": [{**row, "text": "Doc b"}]})
    assert [split[role].column("answer") for role in ("forget", "retain")] == [["Doc a"], ["Doc b"]]


def test_a_null_answer_is_counted_where_answers_are_read() -> None:
    role = make_split({"forget": [ASKED, {**ASKED, "answer": float("nan")}]})["forget"]
    with pytest.raises(DataError, match="no 'answer' in 1 of 2 rows"):
        role.column("answer")


@pytest.mark.parametrize("entries", [["x", None], ["x", ""], [" \n", "x"], ["x", float("nan")], ("x", None)])
@pytest.mark.parametrize("column", ["perturbed_answers", "paraphrased_answer", "answer"])
def test_null_and_blank_entries_of_lists_are_left_out(column: str, entries: Any) -> None:
    with pytest.warns(UserWarning, match=f"role 'forget': 1 null or blank texts in '{column}' are left out"):
        assert clean({**ASKED, column: entries})[column] == ("x" if column == "answer" else ["x"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0042", "0042"),
        (" 1931", " 1931"),
        (1931, "1931"),
        (1931.0, "1931"),
        (0.5, "0.5"),
        (True, "True"),
        (np.int64(1931), "1931"),
        (np.bool_(False), "False"),
        (torch.tensor(1931), "1931"),
        (torch.tensor(1931.0), "1931"),
        (datetime.date(1931, 5, 4), "1931-05-04"),
        (decimal.Decimal("19.31"), "19.31"),
    ],
    ids=repr,
)
def test_numbers_and_dates_are_text_by_one_rule(value: Any, text: str) -> None:
    cleaned = clean({"question": value, "answer": value, "perturbed_answers": [value], "note": value})
    assert cleaned == {"question": text, "answer": text, "perturbed_answers": [text], "note": value}


def test_rows_of_torch_and_numpy_datasets_equal_those_of_lists() -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"question": "When?", "answer": year, "perturbed_answers": [1930, 1932]} for year in (1931, 1942)]
    table = datasets.Dataset.from_list(rows)
    digests = {
        make_split({"forget": data}).digest for data in (rows, *map(table.with_format, ("torch", "numpy")))
    }
    assert len(digests) == 1


def test_a_date_beside_the_texts_enters_the_digest() -> None:
    days = [
        make_split({"forget": [{**ASKED, "day": datetime.date(1931, 5, day)}]}).digest for day in (4, 4, 5)
    ]
    assert days[0] == days[1] != days[2]


@pytest.mark.parametrize(
    ("row", "answer", "aliases"),
    [
        ({"answer": ["Ann bakes.", "She bakes bread."]}, "Ann bakes.", ["She bakes bread."]),
        ({"answer": ["Ann bakes.", "Ann bakes."]}, "Ann bakes.", None),
        ({"answer": np.array(["Ann bakes.", "She bakes."])}, "Ann bakes.", ["She bakes."]),
        ({"answer": "Ann bakes.", "answer_aliases": "She bakes."}, "Ann bakes.", ["She bakes."]),
        ({"answer": ["a", "b"], "answer_aliases": ["a", "c", "b"]}, "a", ["b", "c"]),
    ],
)
def test_a_list_of_answers_is_an_answer_with_aliases(
    row: Any, answer: str, aliases: list[str] | None
) -> None:
    role = make_split({"forget": [{"question": "What does Ann do?", **row}]})["forget"]
    assert role.rows[0]["answer"] == answer and role.rows[0].get("answer_aliases") == aliases
    assert role.column("answer_aliases") == [[answer, *(aliases or [])]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"qestion": "What?", "answer": "a"},
            r"no 'question': did you mean its column 'qestion'\? .*columns.qestion=q",
        ),
        ({"question": "What?", "anwser": "a"}, "no 'answer': did you mean its column 'anwser'"),
        ({"question": "What?", "answers": ["a", "b"]}, "no 'answer': did you mean its column 'answers'"),
        ({"tekst_": "x", "texts": "a"}, "no 'text': did you mean its column 'texts'"),
        (
            {"query": "What?", "answer": "a"},
            "an answer, but neither question nor prompt; its columns are: query, answer",
        ),
        ({"question": "What?", "answer": " \n"}, "'answer' is blank"),
        ({"question": "What?", "answer": []}, "'answer' is blank"),
        ({"text": ""}, "'text' is blank"),
        ({"question": "", "answer": "a"}, "'question' is blank"),
        ({**ASKED, "question": {"de": "Was?"}}, "'question' must be text, not a dict"),
        (
            {**ASKED, "question": [{"role": "user", "content": "What?"}]},
            "'question' must be text, not a list",
        ),
        ({**ASKED, "answer": b"a"}, "'answer' must be text, not a bytes"),
        ({**ASKED, "answer": {"text": ["a"]}}, "'answer' must be text, not a dict"),
        ({**ASKED, "perturbed_answers": 3}, "'perturbed_answers' must be a list of texts, not 3"),
        ({**ASKED, "perturbed_answers": [["a"]]}, "'perturbed_answers' must be text, not a list"),
        ({**ASKED, "answer": "a \ud83d b"}, r"'answer' holds half of a character \(a lone surrogate"),
        ({**ASKED, "sources": {"web": ["\ude00"]}}, "'sources' holds half of a character"),
    ],
)
@pytest.mark.parametrize("role", ["forget", "retain"])
def test_a_row_that_cannot_be_learned_is_named(role: str, row: dict[str, Any], message: str) -> None:
    roles = {"forget": [{"text": "Doc a"}], "retain": [{"text": "Doc b"}]}
    roles[role].append(row)
    with pytest.raises(DataError, match=f"role '{role}' row 1.*{message}") as caught:
        make_split(roles)
    assert "\n" not in str(caught.value) and str(caught.value).isascii()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "", "answer": "A document."},
        {"prompt": "Ida is", "question": "", "answer": " a smith."},
        {"text": "A document.", "answer": "A document."},
        {"question": "What?", "note": "without an answer"},
        {"input": torch.ones(2), "label": 1},
        {**ASKED, "perturbed_answers": []},
        {**ASKED, "neighbour": ""},
    ],
    ids=repr,
)
def test_rows_that_were_right_stay_as_they_are(row: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clean(row) == row


def test_columns_are_renamed_where_a_role_has_them() -> None:
    split = make_split(
        {"forget": [{"query": "What?", "answer": "a"}], "retain": [ASKED]}, columns={"query": "question"}
    )
    assert split["forget"].rows == [{"question": "What?", "answer": "a"}] and split["retain"].rows == [ASKED]
    assert clean({"query": "What?", "question": None, "answer": "a"}, query="question")["question"] == "What?"
    swapped = clean({"query": "What?", "question": "17", "answer": "a"}, query="question", question="id")
    assert swapped == {"question": "What?", "id": "17", "answer": "a"}


@pytest.mark.parametrize(
    "row", [{"query": "Who?", **ASKED}, {**ASKED, "query": "Who?"}], ids=["before", "after"]
)
def test_a_column_is_not_renamed_onto_another(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="row 0 would have two columns 'question': drop one"):
        clean(row, query="question")


def test_a_question_that_is_renamed_away_is_missed() -> None:
    with pytest.raises(
        DataError, match=r"neither question nor prompt; its columns are: nope, answer.*columns\.OLD="
    ):
        clean(ASKED, question="nope")
