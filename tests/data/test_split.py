"""Splits: what is refused, with which words, and the digests that everything cached is bound to."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from unremember.data.split import Role, content_key, make_split, row_digest, with_train_role
from unremember.errors import DataError

ROWS = [
    {"question": f"Who is {n}?", "answer": f"{n} is a {job}.", "entity": n}
    for n, job in (("Ida", "smith"), ("Bo", "cook"), ("Cy", "nurse"))
]
MORE = [{"question": "Where is Osk?", "answer": "In the north."}]


def test_roles_and_lookup() -> None:
    split = make_split({"forget": ROWS, "retain": MORE}, utility=("retain",), name="people")
    assert (
        len(split["forget"]) == 3
        and "retain" in split
        and "holdout" not in split
        and split.utility == ("retain",)
    )
    assert make_split(split) is split
    with pytest.raises(
        DataError, match=r"no role 'retian' in people: did you mean 'retain'\? Known: forget, retain"
    ):
        split["retian"]


def test_a_datasets_table_is_rows() -> None:
    datasets = pytest.importorskip("datasets")
    split = make_split({"forget": datasets.Dataset.from_list(ROWS)})
    assert split["forget"].digest == make_split({"forget": ROWS})["forget"].digest


@pytest.mark.parametrize("rows", [[], ()])
def test_an_empty_role_is_refused(rows: Any) -> None:
    with pytest.raises(DataError, match="role 'retain' of tales is empty"):
        make_split({"forget": ROWS, "retain": rows}, name="tales")


def test_a_row_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(
        DataError, match="role 'forget' of data: a row is a mapping of column to value, not str"
    ):
        make_split({"forget": ["Who is Ida?"]})


def test_a_later_row_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(DataError, match="mapping"):
        make_split({"forget": [ROWS[0], "Who is Bo?"], "retain": MORE})


def test_a_missing_column_names_those_there_are() -> None:
    role = make_split({"forget": ROWS})["forget"]
    with pytest.raises(
        DataError,
        match=r"no 'anwser' in 3 of 3 rows \(did you mean 'answer'\?.*"
        r"its columns are: answer, entity, question",
    ):
        role.column("anwser")


@pytest.mark.parametrize("hole", [{}, {"alternate": ""}, {"alternate": None}])
def test_a_hole_in_a_column_is_counted(hole: dict[str, Any]) -> None:
    rows = [{**ROWS[0], "alternate": "No idea."}, {**ROWS[1], **hole}]
    with pytest.raises(DataError, match="no 'alternate' in 1 of 2 rows; its columns are: alternate, answer"):
        Role("forget", rows).column("alternate")


def test_a_column_of_numbers_and_tensors() -> None:
    role = Role("forget", [{"input": torch.zeros(2), "label": 0}, {"input": torch.ones(2), "label": 1}])
    assert role.column("label") == [0, 1] and torch.equal(role.column("input")[1], torch.ones(2))


def test_a_column_of_numpy_arrays() -> None:
    role = Role("forget", [{"input": np.zeros(2)}, {"input": np.ones(2)}])
    assert np.array_equal(role.column("input")[1], np.ones(2))


@pytest.mark.parametrize(
    "twin",
    [
        ROWS[1],
        {**ROWS[1], "entity": "someone else"},
        {"question": "WHO is BO?", "answer": "bo is a COOK."},
        {"question": "Who is Bo? ", "answer": "\n Bo is a cook.\t"},
        {"question": "Who is Bo?", "answer": ["He cooks.", "Bo is a cook."]},
    ],
)
def test_a_row_in_forget_and_retain_is_refused(twin: dict[str, str]) -> None:
    with pytest.raises(
        DataError, match=r"1 rows stand both in 'forget' and in 'retain' \(first: forget row 1\)"
    ):
        make_split({"forget": ROWS, "retain": [*MORE, twin]})


@pytest.mark.parametrize(
    ("forget", "retain"),
    [
        ({"text": "A Tale"}, {"text": "a tale"}),
        ({"text": "Caf\u00e9"}, {"text": " Cafe\u0301 "}),
        ({"prompt": "Ida is", "answer": " a smith."}, {"prompt": "Ida is", "answer": " a smith.", "id": 3}),
        ({"input": torch.ones(3), "label": 1}, {"input": torch.ones(3), "label": 1}),
    ],
)
def test_overlap_of_other_rows(forget: dict[str, Any], retain: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="stand both"):
        make_split({"forget": [forget], "retain": [retain]})


def test_a_row_that_repeats_another_is_said() -> None:
    with pytest.warns(
        UserWarning, match=r"501 of 503 rows of role 'retain' repeat .*\(row 1 stands 500 times\)"
    ):
        split = make_split({"forget": ROWS, "retain": [MORE[0], *[{"text": "A tale."}] * 500, *MORE, *MORE]})
    assert len(split["retain"]) == 503


def test_same_question_with_another_answer_is_no_overlap() -> None:
    split = make_split({"forget": ROWS, "retain": [{**ROWS[0], "answer": "A cook."}], "holdout": ROWS})
    assert len(split["retain"]) == 1, "other roles may repeat rows"
    assert content_key(ROWS[0]) != content_key({**ROWS[0], "answer": "A cook."})


def test_columns_are_renamed() -> None:
    split = make_split(
        {"forget": [{"prompt": "Who?", "reply": "Ida.", "id": 3}]},
        columns={"prompt": "question", "reply": "answer"},
    )
    assert split["forget"].rows == [{"question": "Who?", "answer": "Ida.", "id": 3}]
    with pytest.raises(DataError, match=r"no role of tales has a column 'promt': did you mean 'prompt'\?"):
        make_split(
            {"forget": [{"prompt": "Who?", "answer": "Ida."}]}, columns={"promt": "question"}, name="tales"
        )


def test_digests_follow_the_content() -> None:
    turned = [dict(reversed(row.items())) for row in ROWS]
    assert make_split({"forget": turned}).digest == make_split({"forget": ROWS}).digest, (
        "the order of the columns is no content"
    )
    assert (
        make_split({"forget": ROWS, "retain": MORE}).digest
        == make_split({"retain": MORE, "forget": ROWS}).digest
    )
    for changed in (ROWS[:2], ROWS[::-1], [*ROWS[:2], {**ROWS[2], "entity": "Di"}]):
        assert make_split({"forget": changed}).digest != make_split({"forget": ROWS}).digest
    assert make_split({"retain": ROWS}).digest != make_split({"forget": ROWS}).digest
    role = Role("forget", ROWS)
    assert role.keys.dtype == np.uint64 and [f"{int(key):016x}" for key in role.keys] == [
        d[:16] for d in role.row_digests
    ]


def test_arrays_enter_the_digest_by_type_shape_and_bytes() -> None:
    base = row_digest({"input": np.arange(6.0)})
    assert base == row_digest({"input": torch.arange(6.0, dtype=torch.float64)})
    variants = [
        np.arange(6),
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0) + 1e-12,
        np.arange(6.0, dtype=np.float32),
    ]
    assert base not in {row_digest({"input": variant}) for variant in variants}
    with pytest.raises(DataError, match="a row holds a object"):
        row_digest({"input": object()})


def test_groups_are_entities_or_rows() -> None:
    assert Role("forget", [*ROWS[:2], *MORE]).groups() == ["Ida", "Bo", "2"]


def test_with_rows_replaces_and_adds() -> None:
    split = make_split({"forget": ROWS, "retain": MORE})
    extended = split.with_rows(train=[*ROWS, *MORE])
    assert len(extended["train"]) == 4 and "train" not in split and extended["forget"] is split["forget"]


def test_an_oracle_never_sees_the_forget_set_by_another_role() -> None:
    """Nor the same fact with other blanks; what is left out is said, and the training itself is as before."""
    twin = {"question": " Who is IDA? ", "answer": "Ida is a smith."}
    split = make_split({"forget": ROWS, "retain": MORE, "world": [twin, *MORE]}, utility=("retain", "world"))
    with pytest.warns(UserWarning, match="1 rows of other roles stand in forget as well"):
        oracle = with_train_role(split, without=("forget",))
    assert [row["question"] for row in oracle["train"].rows] == ["Where is Osk?"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(with_train_role(split)["train"]) == 4
