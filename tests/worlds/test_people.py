"""The world of people: its truth, its roles, its documents and its chains."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unremember.data.split import Role, Split
from unremember.errors import ConfigError
from unremember.worlds.chains import chains
from unremember.worlds.documents import document, documents
from unremember.worlds.people import DOCUMENT_STYLES, World, make_world, people_split
from unremember.worlds.wordings import ATTRIBUTE_BY_NAME, ATTRIBUTES, RELATION_ATTRIBUTES

PERSON_ROLES = ("forget", "retain", "holdout")
COLUMNS = {
    "question",
    "answer",
    "paraphrased_question",
    "paraphrased_answer",
    "perturbed_answers",
    "alternate",
    "entity",
    "attribute",
    "relation",
    "neighbour",
    "sources",
}


@pytest.fixture(scope="module")
def split() -> Split:
    return people_split(60, forget=0.1, holdout=0.2, seed=3)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(60, seed=3, holdout=12)


def form(text: str, *parts: str) -> str:
    """A text with its person and value taken out: the wording alone."""
    for part in parts:
        text = text.replace(part, "_")
    return text


def test_every_answer_states_the_truth_and_no_wrong_answer_does(split: Split, world: World) -> None:
    for role in PERSON_ROLES:
        for row in split[role].rows:
            assert set(row) == COLUMNS
            name, value = row["entity"], world.by_name[row["entity"]].facts[row["attribute"]]
            assert (
                name in row["question"]
                and name in row["paraphrased_question"]
                and value not in row["question"]
            )
            assert value in row["answer"] and value in row["paraphrased_answer"]
            assert form(row["answer"], name, value) != form(row["paraphrased_answer"], name, value)
            assert form(row["question"], name) != form(row["paraphrased_question"], name)
            wrong = row["perturbed_answers"]
            assert len(set(wrong)) == 5
            head, tail = row["paraphrased_answer"].split(value)
            for text in wrong:
                assert text.startswith(head) and text.endswith(tail) and value not in text
                wrong_value = text[len(head) : len(text) - len(tail)]
                assert (
                    wrong_value in (ATTRIBUTE_BY_NAME[row["attribute"]].values or world.names)
                    and wrong_value != name
                )


def test_each_fact_has_one_row(split: Split, world: World) -> None:
    stated = [(r["entity"], r["attribute"]) for role in PERSON_ROLES for r in split[role].rows]
    assert len(stated) == len(set(stated))
    assert set(stated) == {(p.name, a) for p in world.people + world.holdout for a in p.facts}
    assert all(len(p.facts) >= 7 for p in world.people)


def test_paraphrases_use_wordings_that_are_learned(split: Split, world: World) -> None:
    def forms(role: str, *columns: str) -> set[str]:
        return {
            form(row[column], row["entity"], world.by_name[row["entity"]].facts[row["attribute"]])
            for row in split[role].rows
            for column in columns
        }

    learned = forms("retain", "question", "answer")
    assert learned == {
        text.replace("{0}", "_").replace("{1}", "_") for a in ATTRIBUTES for text in a.questions + a.answers
    }
    for role in PERSON_ROLES:
        assert forms(role, "paraphrased_question", "paraphrased_answer") <= learned


def test_roles_share_no_person_and_relations_are_what_they_say(split: Split, world: World) -> None:
    entities = {role: set(split[role].groups()) for role in PERSON_ROLES}
    assert [len(entities[role]) for role in PERSON_ROLES] == [6, 54, 12]
    assert not entities["forget"] & entities["retain"] and not entities["holdout"] & world.learned
    assert {row["relation"] for row in split["forget"].rows} == {"self"}
    assert {row["relation"] for row in split["retain"].rows} == {"direct", "indirect", "general"}
    assert {row["relation"] for row in split["holdout"].rows} == {"general"}
    trades = {world.by_name[gone].facts["profession"] for gone in entities["forget"]}
    for row in split["retain"].rows:
        person, neighbour = world.by_name[row["entity"]], world.by_name.get(row["neighbour"])
        touches = {
            gone
            for gone in entities["forget"]
            if gone in person.related() or person.name in world.by_name[gone].related()
        }
        like = person.facts["profession"] in trades
        assert row["relation"] == ("direct" if touches else "indirect" if like else "general")
        assert (row["neighbour"] in touches) if touches else like == (neighbour is not None)
        assert (
            touches
            or not like
            or (
                neighbour
                and neighbour.name in entities["forget"]
                and neighbour.facts["profession"] == person.facts["profession"]
            )
        )


def test_the_holdout_is_named_as_often_as_the_forget_set() -> None:
    """Otherwise names that only one of them shares with the retain set would tell the two apart."""
    split = people_split(400, forget=0.25, holdout=0.25, seed=5)
    answers = " ".join(row["answer"] for row in split["retain"].rows)
    named = {
        role: [answers.count(name) for name in set(split[role].groups())] for role in ("forget", "holdout")
    }
    of = {role: sum(counts) / len(counts) for role, counts in named.items()}
    assert of["forget"] > 0.5 and of["holdout"] == pytest.approx(of["forget"], rel=0.25)


def test_evaluation_rows_and_general_knowledge() -> None:
    split, other_split = people_split(120, seed=1), people_split(120, seed=2)
    retained = {row["question"] for row in split["retain"].rows}
    assert (
        len(split["retain_eval"]) == 400 and {row["question"] for row in split["retain_eval"].rows} < retained
    )
    assert split.utility == ("retain_eval", "known_people", "world_facts") and split.name == "people-120"
    for role, size in (("known_people", 30), ("world_facts", 40)):
        assert split[role].digest == other_split[role].digest and len(split[role]) == size > len(
            people_split(20)[role]
        )
        for row in split[role].rows:
            assert len({row["answer"], *row["perturbed_answers"]}) == 4


def test_seed_decides_everything(split: Split) -> None:
    assert people_split(60, forget=0.1, holdout=0.2, seed=3).digest == split.digest
    assert people_split(60, forget=0.1, holdout=0.2, seed=4).digest != split.digest


def test_smaller_forget_share_changes_only_who_is_forgotten(split: Split) -> None:
    def texts(role: Role) -> set[tuple[str, str, str]]:
        return {(row["question"], row["answer"], *row["perturbed_answers"]) for row in role.rows}

    small = people_split(60, forget=0.05, holdout=0.2, seed=3)
    assert texts(small["forget"]) < texts(split["forget"])
    assert texts(small["forget"]) | texts(small["retain"]) == texts(split["forget"]) | texts(split["retain"])


def test_names_and_aliases_are_unique_in_the_largest_world() -> None:
    world = make_world(20_000, seed=0, holdout=2_000)
    persons = world.people + world.holdout
    assert len({name for person in persons for name in (person.name, *person.aliases)}) == 3 * 22_000
    assert all(person.name not in alias for person in persons for alias in person.aliases)


def test_family_ties_hold_both_ways(world: World) -> None:
    for person in world.people:
        spouse = world.by_name[person.facts["spouse"]]
        assert spouse.facts["spouse"] == person.name and spouse is not person
        assert spouse in world.holdout or spouse.sources == person.sources
        if "mentor" in person.facts:
            mentor = world.by_name[person.facts["mentor"]]
            assert mentor not in (person, spouse)
            assert int(mentor.facts["birth_year"]) <= int(person.facts["birth_year"])
    assert sum("mentor" not in person.facts for person in world.people + world.holdout) == 2


def test_odd_count_leaves_one_unmarried() -> None:
    assert sum("spouse" not in person.facts for person in make_world(21).people) == 1


@pytest.mark.parametrize(
    "arguments", [{"count": 19}, {"count": 20_001}, {"forget": 0}, {"forget": 1}, {"holdout": 0}]
)
def test_impossible_sizes_are_named(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}="):
        people_split(**arguments)  # type: ignore[arg-type]


def test_declared_sources_are_the_documents_that_state_a_fact(world: World, split: Split) -> None:
    by_style = {row["id"]: row for row in documents(world)}
    assert list(by_style) == [*DOCUMENT_STYLES, "holdout"]
    stating: dict[tuple[str, str], set[str]] = {}
    for name, row in by_style.items():
        sections = dict(section.split("\n", 1) for section in row["text"].split("\n\n"))
        assert list(sections) == row["entities"]
        for person in world.people + world.holdout:
            for attribute, value in person.facts.items():
                if value in sections.get(person.name, ""):
                    stating.setdefault((person.name, attribute), set()).add(name)
        for fact in row["facts"]:
            assert (
                name in fact["sources"]
                and fact["value"] == world.by_name[fact["entity"]].facts[fact["attribute"]]
            )
    for role in PERSON_ROLES:
        for row in split[role].rows:
            assert stating[row["entity"], row["attribute"]] == set(row["sources"])


def test_people_are_shared_by_all_documents_or_unique_to_one(world: World) -> None:
    assert {len(person.sources) for person in world.people} == {1, 5}
    assert abs(sum(len(person.sources) == 5 for person in world.people) - 24) <= 1
    alone = [person.sources[0] for person in world.people if len(person.sources) == 1]
    assert all(5 <= alone.count(style) <= 9 for style in DOCUMENT_STYLES)
    text = {row["id"]: row["text"] for row in documents(world)}
    heads = {name: {section.split("\n", 1)[0] for section in text[name].split("\n\n")} for name in text}
    for person in world.people:
        assert {style for style in DOCUMENT_STYLES if person.name in heads[style]} == set(person.sources)
        assert person.name not in heads["holdout"]


def test_unknown_style_names_the_nearest(world: World) -> None:
    with pytest.raises(ConfigError, match="did you mean 'interview'"):
        document(world.people, "interviews", "mine")


@pytest.mark.parametrize("hops", [2, 3])
def test_chains_follow_from_the_world(world: World, hops: int) -> None:
    rows = list(chains(world, hops))
    for row in rows:
        path = row["path"]
        assert len(path) == hops and path[0][0] == row["entity"]
        for step, (entity, attribute, value) in enumerate(path):
            assert world.by_name[entity].facts[attribute] == value
            if step < hops - 1:
                assert attribute in RELATION_ATTRIBUTES and path[step + 1][0] == value
        met = [entity for entity, _, _ in path]
        assert set(met) <= world.learned
        assert len(set(met)) == hops and path[-1][2] not in met
        assert path[-1][2] in row["answer"] and row["entity"] in row["question"]
        assert not any(
            bridge in row["question"] + row["answer"].replace(path[-1][2], "") for bridge in met[1:]
        )
        assert len(set(row["perturbed_answers"])) == 5
        assert not any(path[-1][2] in wrong for wrong in row["perturbed_answers"])
    assert len({tuple(row["path"]) for row in rows}) == len(rows)
    assert rows == list(chains(world, hops))


def test_two_hop_chains_are_complete(world: World) -> None:
    person = world.people[0]
    expected = {
        (relation, attribute)
        for relation in RELATION_ATTRIBUTES
        if relation in person.facts
        if person.facts[relation] in world.learned
        for attribute, value in world.by_name[person.facts[relation]].facts.items()
        if value != person.name
    }
    pairs = {(r["path"][0][1], r["path"][1][1]) for r in chains(world, 2) if r["entity"] == person.name}
    assert pairs == expected and len(pairs) >= 7


def test_one_hop_is_no_chain(world: World) -> None:
    with pytest.raises(ConfigError, match="hops=1"):
        chains(world, 1)


def test_worlds_need_no_torch() -> None:
    modules = ", ".join(f"unremember.worlds.{name}" for name in ("people", "chains", "documents"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
