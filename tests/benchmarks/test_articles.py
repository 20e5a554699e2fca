"""The world of articles: roles, streams, and that forget set and holdout are of one kind."""

from __future__ import annotations

import pytest

from unremember.benchmarks.articles import SHOTS, Articles
from unremember.benchmarks.muse import MUSE_AUDITS
from unremember.errors import ConfigError
from unremember.worlds.articles import articles
from unremember.worlds.people import make_world


def test_the_roles() -> None:
    split = Articles().split()
    sizes = {name: len(role) for name, role in split.roles.items()}
    assert sizes == {
        "forget": 50 * 3,
        "retain": 100 * 3 - SHOTS,
        "holdout": 50,
        "verbmem": 50,
        "knowmem": 100,
        "knowmem_retain": 200 - SHOTS,
        "privleak_forget": 50,
        "privleak_holdout": 50,
        "privleak_retain": 100,
    }
    people = {name: set(split[name].groups()) for name in ("forget", "retain", "holdout")}
    assert [len(names) for names in people.values()] == [50, 100, 50] and len(
        set.union(*people.values())
    ) == 200
    passage = split["verbmem"].rows[0]
    assert passage["prompt"] + passage["answer"] == split["privleak_forget"].rows[0]["text"]
    question = split["knowmem"].rows[0]
    assert (
        question["prompt"].count("Answer:") == SHOTS + 1
        and question["answer"].strip() in split["privleak_forget"].rows[0]["text"]
    )
    assert (
        split.audits == MUSE_AUDITS
        and Articles(seed=1).split().digest != split.digest == Articles().split().digest
    )


def test_every_article_is_as_likely_in_any_role() -> None:
    """Names, facts and orders are drawn over all articles alike: relations may cross the roles."""
    documents, questions = articles(make_world(40, 3))
    world = make_world(40, 3)
    assert {row["entity"] for row in documents} == set(world.names) and [
        row["entity"] for row in documents
    ] != list(world.names)
    for row, pair in zip(documents, questions):
        facts = world.by_name[row["entity"]].facts
        assert all(value in row["text"] for value in facts.values()) and row["text"].startswith(
            f"{row['entity']}\n"
        )
        assert [question["answer"] for question in pair] == [facts[name] for name in ("birthplace", "award")]
    orders = {
        tuple(sorted(facts, key=row["text"].index))
        for row in documents
        for facts in [sorted(world.by_name[row["entity"]].facts.values())]
    }
    assert len(orders) == 40


def test_the_streams_are_disjoint_or_nested() -> None:
    sust, scal = (Articles(40).requests(kind) for kind in ("sust", "scal"))
    subjects = [[set(split["forget"].groups()) for split in stream] for stream in (sust, scal)]
    assert [len(names) for names in subjects[0]] == [2, 3, 2, 3] and len(set.union(*subjects[0])) == 10
    assert all(small < large for small, large in zip(subjects[1], subjects[1][1:]))
    assert subjects[1][-1] == set(Articles(40).split()["privleak_forget"].groups())
    assert len({split["retain"].digest for split in (*sust, *scal)}) == 1
    with pytest.raises(ConfigError, match="no forget set 'sust_5': did you mean 'sust_"):
        Articles(40, "sust_5").split()
