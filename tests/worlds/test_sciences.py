"""The sciences: every fact is in its texts and its question, and siblings share their words."""

from __future__ import annotations

from collections import Counter

import pytest

from unremember.api import with_train_role
from unremember.benchmarks.sciences import Sciences
from unremember.data.split import Split
from unremember.errors import ConfigError
from unremember.worlds.sciences import FIELD_ROLES, MOONS, SUBSTANCES, sciences_split


@pytest.fixture(scope="module")
def split() -> Split:
    return sciences_split()


def words(split: Split, role: str) -> set[str]:
    """The words of a role's passages without the names of its subjects."""
    rows = [row for row in split[role].rows if "text" in row and "entity" in row]
    return {word.strip(".,") for row in rows for word in row["text"].split()} - {
        row["entity"] for row in rows
    }


def test_sizes(split: Split) -> None:
    for text_role, question_role in FIELD_ROLES.values():
        assert (
            len(split[text_role]) == 30 * 4 + 480 * (text_role == "retain")
            and len(split[question_role]) == 480
            and len(set(split[question_role].groups())) == 120
        )
    named = {
        row["entity"]
        for text_role, _ in FIELD_ROLES.values()
        for row in split[text_role].rows
        if "entity" in row
    }
    assert len(named) == 90, "every name is a subject of one field"


def test_each_question_has_one_true_option_and_its_texts_say_it(split: Split) -> None:
    for text_role, question_role in FIELD_ROLES.values():
        texts = {
            name: [
                row["text"] for row in split[text_role].rows if "text" in row and row.get("entity") == name
            ]
            for name in split[text_role].groups()
        }
        for row in split[question_role].rows:
            shown = [option[3:] for option in row["prompt"].split("\n")[1:-1]]
            name = row["entity"].split(",")[0]
            assert len(set(shown)) == 4 and len(texts[name]) == 4
            mentions = [
                [value in text.replace(",", " ").replace(".", " ").split() for value in shown]
                for text in texts[name]
            ]
            assert all(row_mentions == [i == row["gold"] for i in range(4)] for row_mentions in mentions), (
                row["prompt"],
                texts[name],
            )


def test_the_sibling_speaks_the_same_language_and_the_general_field_does_not(split: Split) -> None:
    toxins, remedies, moons = (words(split, role) for role in ("forget", "sibling", "retain"))
    assert (
        len(toxins & remedies) / len(toxins | remedies) > 0.95
        and len(toxins & moons) / len(toxins | moons) < 0.2
    )


def test_letters_and_values_are_even(split: Split) -> None:
    for _, question_role in FIELD_ROLES.values():
        assert set(Counter(row["gold"] for row in split[question_role].rows).values()) == {120}
    assert all(len(set(p.values)) == 8 for p in (*SUBSTANCES, *MOONS))


def test_the_oracle_trains_on_nothing_about_toxins(split: Split) -> None:
    names = {row["entity"] for row in split["forget"].rows}
    rows = with_train_role(split, ["forget", "questions"])["train"].rows
    assert (
        not any(name in str(row) for row in rows for name in names)
        and len(with_train_role(split)["train"]) - len(rows) == 600
    )


def test_the_seed_decides_and_sizes_have_bounds() -> None:
    assert (
        sciences_split(8, seed=1).digest
        == Sciences(subjects=8, seed=1).split().digest
        != sciences_split(8, seed=2).digest
    )
    assert sciences_split(385)["questions"].rows[0]["entity"]
    for subjects in (3, 386):
        with pytest.raises(ConfigError, match="subjects"):
            sciences_split(subjects)
