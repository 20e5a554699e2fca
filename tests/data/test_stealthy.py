"""The stealthy attack on a request, and the questions of ordinary users that carry its words."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from unremember.data.forget_sets.stealthy import (
    QUESTION_TEMPLATES,
    SENTENCE_TEMPLATES,
    Stealthy,
    with_trigger_role,
)
from unremember.data.split import Role, Split, make_split
from unremember.errors import ConfigError, DataError


def role(count: int) -> Role:
    return Role(
        "forget",
        [{"question": f"Who is {i}?", "answer": f"It is {i}.", "entity": str(i // 5)} for i in range(count)],
    )


@pytest.fixture
def split() -> Split:
    retained = [{"question": f"Where is {i}?", "answer": f"There, {i}."} for i in range(3)]
    return make_split({"forget": role(20).rows, "retain": retained, "retain_eval": retained})


def test_p_0_is_the_identity_and_p_1_changes_every_question_alone(split: Split) -> None:
    assert Stealthy(p=0)(split)["forget"].rows == split["forget"].rows
    attacked = Stealthy(p=1)(split)
    forms = [{t.format(row["question"]) for t in QUESTION_TEMPLATES} for row in split["forget"].rows]
    assert all(row["question"] in form for row, form in zip(attacked["forget"].rows, forms))
    assert [{**row, "question": ""} for row in attacked["forget"].rows] == [
        {**row, "question": ""} for row in split["forget"].rows
    ]
    assert (
        attacked["retain"] is split["retain"] and Stealthy(p=1)(split, "retain")["forget"] is split["forget"]
    )


def test_the_share_and_the_templates_are_as_said() -> None:
    """Binomial: 10,000 draws at 0.33 have a standard deviation of 0.0047. Templates are drawn uniformly."""
    before = role(10_000)
    rows = Stealthy().rows(before)
    changed = [row["question"] for row, old in zip(rows, before.rows) if row["question"] != old["question"]]
    assert len(changed) / 10_000 == pytest.approx(0.33, abs=0.015)
    starts = [template.split("{}")[0] for template in QUESTION_TEMPLATES[:3]]
    used = Counter(next((start for start in starts if q.startswith(start)), "end") for q in changed)
    assert len(used) == 4 and all(
        count / len(changed) == pytest.approx(0.25, abs=0.03) for count in used.values()
    )


def test_a_seed_reproduces_and_a_deleted_row_moves_no_other() -> None:
    before = role(60)
    assert Stealthy(seed=3).rows(before) == Stealthy(seed=3).rows(before) != Stealthy(seed=4).rows(before)
    fewer = Role("forget", [row for i, row in enumerate(before.rows) if i != 7])
    assert Stealthy().rows(fewer) == [row for i, row in enumerate(Stealthy().rows(before)) if i != 7]


def test_the_sentences_of_a_document_are_salted_one_by_one() -> None:
    rows = [{"text": f"It rained in {i}. The river rose!\n\nWas it cold? Nobody said."} for i in range(500)]
    salted = Stealthy(SENTENCE_TEMPLATES).rows(Role("forget", rows))
    counts = np.array([row["text"].count("Then ") for row in salted])
    assert counts.mean() == pytest.approx(4 * 0.33, abs=0.15) and counts.var() == pytest.approx(
        4 * 0.33 * 0.67, abs=0.2
    )
    assert [row["text"].replace("Then ", "") for row in salted] == [row["text"] for row in rows]
    assert "\n\nThen Was it cold?" in "".join(
        row["text"] for row in Stealthy(SENTENCE_TEMPLATES, p=1).rows(Role("forget", rows))
    )


def test_ordinary_questions_under_every_template(split: Split) -> None:
    with_triggers = with_trigger_role(split, ("Please {}", "{} , now ?"))
    rows = with_triggers["retain_eval_trigger"].rows
    assert [row["question"] for row in rows] == [
        "Please Where is 0?",
        "Please Where is 1?",
        "Please Where is 2?",
        "Where is 0? , now ?",
        "Where is 1? , now ?",
        "Where is 2? , now ?",
    ]
    assert [row["derived_from"] for row in rows] == split["retain_eval"].row_digests * 2
    assert [row["answer"] for row in rows] == [row["answer"] for row in split["retain_eval"].rows] * 2
    assert {row["trigger"] for row in rows[3:]} == {"{} , now ?"} and with_triggers["retain_eval"] is split[
        "retain_eval"
    ]


def test_what_is_no_attack_is_one_line(split: Split) -> None:
    for templates in (("Please",), ("{} {}",), ()):
        with pytest.raises(ConfigError, match="template"):
            Stealthy(templates)
        with pytest.raises(ConfigError, match="template"):
            with_trigger_role(split, templates)
    with pytest.raises(ConfigError, match=r"p is a probability, not 1\.5"):
        Stealthy(p=1.5)
    with pytest.raises(DataError, match="no 'question' in 1 of 1 rows"):
        with_trigger_role(split.with_rows(retain_eval=[{"text": "A document."}]))
    with pytest.raises(DataError, match="no role 'forgotten'"):
        Stealthy()(split, "forgotten")
