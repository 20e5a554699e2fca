"""Fictitious people whose every fact is known, with all the answers that the metrics of TOFU need.

Own data, shaped after TOFU (arXiv 2401.06121) and, for documents and their sources, DUSK (arXiv 2505.15209).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from unremember.data.split import Row, Split, make_split
from unremember.errors import ConfigError
from unremember.worlds.general import known_people, world_facts
from unremember.worlds.refusals import REFUSALS
from unremember.worlds.wordings import ATTRIBUTE_BY_NAME, ATTRIBUTES, RELATION_ATTRIBUTES
from unremember.worlds.words import FIRST_NAMES, LAST_NAMES, SYLLABLES

DOCUMENT_STYLES = ("chronological", "feature", "interview", "pyramid", "listicle")
HOLDOUT_DOCUMENT = "holdout"
SMALLEST_WORLD, LARGEST_WORLD = 20, 20_000
_IN_ALL_DOCUMENTS = 0.4
"""The share of people who are in all documents; each of the others is in one."""
_RETAIN_EVAL_ROWS = 400
_WRONG_ANSWERS = 5
_ELDERS = 40
"""A mentor is one of this many next older people."""


@dataclasses.dataclass(frozen=True)
class Person:
    """A person.

    Args:
        name: First and last name.
        aliases: A form with a middle initial, and a pen name. Neither contains ``name``.
        facts: Value by attribute.
        sources: The documents that state these facts. For people who are never learned this is "holdout".
    """

    name: str
    aliases: tuple[str, str]
    facts: Mapping[str, str]
    sources: tuple[str, ...]

    def related(self) -> set[str]:
        """Return the names of the spouse and the mentor, as far as the person has them."""
        return {self.facts[relation] for relation in RELATION_ATTRIBUTES if relation in self.facts}


@dataclasses.dataclass(frozen=True)
class World:
    """A community of people.

    A model that learned ``people`` knows of the holdout only what others' facts say: whom they married or
    taught. So the holdout is to that model what the forget set is to the retrained oracle.

    Args:
        people: The people who are learned.
        holdout: The people who are never learned.
        seed: The seed that the world was drawn from.
    """

    people: tuple[Person, ...]
    holdout: tuple[Person, ...]
    seed: int

    @cached_property
    def by_name(self) -> dict[str, Person]:
        """Everybody, by name."""
        return {person.name: person for person in self.people + self.holdout}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names: the values of relations, true and wrong."""
        return tuple(self.by_name)

    @cached_property
    def learned(self) -> frozenset[str]:
        """The names of the people who are learned."""
        return frozenset(person.name for person in self.people)

    def wrong(self, attribute: str, person: str, true: str, start: int, stride: int) -> list[str]:
        """Return five distinct wrong values.

        Args:
            attribute: Whose values they are.
            person: The person's name, which is none of them.
            true: The true value, which is none of them.
            start: Any integer; with ``stride`` it decides which values are taken.
            stride: Any integer.
        """
        pool = ATTRIBUTE_BY_NAME[attribute].values or self.names
        stride = 1 + stride % ((len(pool) - 1) // (_WRONG_ANSWERS + 1))
        values = [pool[i % len(pool)] for i in range(start, start + (_WRONG_ANSWERS + 2) * stride, stride)]
        return [value for value in values if value != true and value != person][:_WRONG_ANSWERS]


def make_world(count: int = 200, seed: int = 0, holdout: int = 0) -> World:
    """Draw a world. The same numbers give the same people.

    Args:
        count: The people who are learned.
        seed: The seed of all draws.
        holdout: The people who are never learned.

    Raises:
        ConfigError: ``count`` is not in 20 … 20,000, ``seed`` is below 0, or there are not enough names.
    """
    if not SMALLEST_WORLD <= count <= LARGEST_WORLD:
        raise ConfigError(f"count={count}: a world has {SMALLEST_WORLD} to {LARGEST_WORLD} people")
    if seed < 0:
        raise ConfigError(f"seed={seed}: the seed of a world is 0 or more")
    names = len(FIRST_NAMES) * len(LAST_NAMES)
    if holdout < 0 or count + holdout > names:
        raise ConfigError(f"holdout={holdout}: there are names for 0 to {names - count} more people")
    numbers = np.random.default_rng(seed).permutation(names)[: count + holdout].tolist()
    people = _draw_people(numbers, count, np.random.default_rng([seed, 1]))
    return World(people[:count], people[count:], seed)


def _draw_people(numbers: Sequence[int], learned: int, rng: np.random.Generator) -> tuple[Person, ...]:
    """Return a person for each number, which decides the name; the first ``learned`` ones are learned."""
    draws = rng.integers(0, 2**31, size=(len(numbers), len(ATTRIBUTES))).tolist()
    drawn_facts = [
        {a.name: a.values[draw % len(a.values)] for a, draw in zip(ATTRIBUTES, row) if a.values}
        for row in draws
    ]
    names = [f"{FIRST_NAMES[n % len(FIRST_NAMES)]} {LAST_NAMES[n // len(FIRST_NAMES)]}" for n in numbers]
    spouses, mentors = _draw_relations([int(facts["birth_year"]) for facts in drawn_facts], rng)
    sources = [
        *_draw_sources(learned, spouses, rng),
        *[(HOLDOUT_DOCUMENT,)] * (len(numbers) - learned),
    ]
    people = []
    for i, facts in enumerate(drawn_facts):
        facts |= {"mentor": names[mentors[i]]} if i in mentors else {}
        facts |= {"spouse": names[spouses[i]]} if i in spouses else {}
        ordered = {a.name: facts[a.name] for a in ATTRIBUTES if a.name in facts}
        people.append(Person(names[i], _aliases(names[i], numbers[i]), ordered, sources[i]))
    return tuple(people)


def _aliases(name: str, number: int) -> tuple[str, str]:
    """Return a form with a middle initial and a pen name; both differ from those of every other number."""
    first, last = name.split()
    base = len(SYLLABLES)
    pen = (
        SYLLABLES[number % base]
        + SYLLABLES[number // base % base].lower()
        + SYLLABLES[number // base**2].lower()
    )
    return f"{first} {'ABCDEFGHJKLM'[number % 12]}. {last}", pen


def _draw_relations(years: Sequence[int], rng: np.random.Generator) -> tuple[dict[int, int], dict[int, int]]:
    """Return (spouse, mentor) of each person, by index.

    People next to each other in age marry; a mentor is one of the 40 next older people. The oldest couple has
    no mentor. Of an odd number of people the youngest has no spouse.
    """
    order = np.argsort(years, kind="stable").tolist()
    couples = list(zip(order[::2], order[1::2]))
    spouses = dict(couples) | {b: a for a, b in couples}
    older = [rank - rank % 2 for rank in range(len(order))]
    picks = rng.random(len(order)).tolist()
    mentors = {
        order[rank]: order[count - 1 - int(picks[rank] * min(_ELDERS, count))]
        for rank, count in enumerate(older)
        if count
    }
    return spouses, mentors


def _draw_sources(count: int, spouses: Mapping[int, int], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Return the documents of the first ``count`` people: all five for a share of 0.4, else one, evenly.

    A couple is in the same documents, because a document that states a marriage states it of both.
    """
    couples = [min(i, spouses.get(i, i)) for i in range(count)]
    order = rng.permutation(sorted(set(couples))).tolist()
    people_so_far = np.cumsum(np.bincount(couples)[order])
    shared = int(np.searchsorted(people_so_far, _IN_ALL_DOCUMENTS * count, "right"))
    sources = {
        couple: DOCUMENT_STYLES if i < shared else (DOCUMENT_STYLES[i % len(DOCUMENT_STYLES)],)
        for i, couple in enumerate(order)
    }
    return [sources[couple] for couple in couples]


def people_split(count: int = 200, forget: float = 0.1, holdout: float = 0.1, seed: int = 0) -> Split:
    """Return the split of a generated world, with about nine question-answer pairs for each person.

    Args:
        count: The people who are learned.
        forget: The share of them to forget. A smaller share is part of a greater one, and the other rows stay
            the same.
        holdout: The people who are made in addition and never learned, as a share of ``count``.
        seed: The seed of all draws.

    Returns:
        The roles forget, retain, retain_eval (at most 400 rows of retain), holdout, known_people and
        world_facts.

    Raises:
        ConfigError: Forget, retain or holdout would have no person.
    """
    forgotten = round(count * forget) if 0 < forget < 1 else 0
    unlearned = round(count * holdout)
    if not 0 < forgotten < count:
        raise ConfigError(
            f"forget={forget}: of {count} people it must take at least one and leave at least one"
        )
    if unlearned < 1:
        raise ConfigError(f"holdout={holdout}: of {count} people it must make at least one more")
    world = make_world(count, seed, unlearned)
    retain_people, forget_people = world.people[:-forgotten], world.people[-forgotten:]
    relations = dict.fromkeys(world.by_name, ("general", ""))
    relations |= _relations_to_forgotten(retain_people, forget_people)
    learned_rows = _fact_rows(world, world.people, np.random.default_rng([seed, 3]), relations)
    holdout_rows = _fact_rows(world, world.holdout, np.random.default_rng([seed, 4]), relations)
    forget_rows = [row for row in learned_rows if row["relation"] == "self"]
    retain_rows = [row for row in learned_rows if row["relation"] != "self"]
    size = min(_RETAIN_EVAL_ROWS, len(retain_rows))
    sample = sorted(np.random.default_rng([seed, 5]).permutation(len(retain_rows))[:size].tolist())
    return make_split(
        {
            "forget": forget_rows,
            "retain": retain_rows,
            "retain_eval": [retain_rows[i] for i in sample],
            "holdout": holdout_rows,
            "known_people": known_people(count),
            "world_facts": world_facts(count),
        },
        utility=("retain_eval", "known_people", "world_facts"),
        name=f"people-{count}",
    )


def _relations_to_forgotten(retain: Sequence[Person], forget: Sequence[Person]) -> dict[str, tuple[str, str]]:
    """Return, by name, (relation, neighbour): how people stand to those to forget, and to whom of them.

    The relation is ``self`` for those to forget; ``direct`` for the retained who are spouse, mentor or pupil
    of one of them; ``indirect`` for the retained who share a profession with one of them. All others are
    missing.
    """
    by_profession = {person.facts["profession"]: person.name for person in reversed(forget)}
    forget_names = {person.name for person in forget}
    related_to = {name: person.name for person in reversed(forget) for name in person.related()}
    relations = {}
    for person in retain:
        own_relations = (name for name in sorted(person.related()) if name in forget_names)
        neighbour = next(own_relations, related_to.get(person.name, ""))
        if neighbour:
            relations[person.name] = ("direct", neighbour)
        elif person.facts["profession"] in by_profession:
            relations[person.name] = ("indirect", by_profession[person.facts["profession"]])
    return relations | {name: ("self", name) for name in forget_names}


def _fact_rows(
    world: World,
    persons: Sequence[Person],
    rng: np.random.Generator,
    relations: Mapping[str, tuple[str, str]],
) -> list[Row]:
    """Return a row for each fact of ``persons``; ``relations`` says by name how they relate to the forgotten.

    Among any three consecutive persons each wording of an attribute occurs once. The wording of a paraphrase
    is thus one that is learned with other people.
    """
    size = (len(persons), len(ATTRIBUTES))
    questions, answers = _draw_wordings(rng, *size), _draw_wordings(rng, *size)
    other_questions, other_answers = (
        (wording + rng.integers(1, 3, size)) % 3 for wording in (questions, answers)
    )
    chance = rng.integers(0, 2**31, (3, *size))
    draws = np.stack([questions, other_questions, answers, other_answers, *chance], axis=-1).tolist()
    return [
        _fact_row(world, person, attribute.name, draw, relations[person.name])
        for person, person_draws in zip(persons, draws)
        for attribute, draw in zip(ATTRIBUTES, person_draws)
        if attribute.name in person.facts
    ]


def _fact_row(world: World, person: Person, name: str, draw: Sequence[int], relation: tuple[str, str]) -> Row:
    """Return the row of one fact; ``draw`` decides its wordings, wrong values and refusal."""
    question, other_question, answer, other_answer, start, stride, refusal = draw
    attribute, value = ATTRIBUTE_BY_NAME[name], person.facts[name]
    paraphrase = attribute.answers[other_answer]
    wrong = world.wrong(name, person.name, value, start, stride)
    return {
        "question": attribute.questions[question].format(person.name),
        "answer": attribute.answers[answer].format(person.name, value),
        "paraphrased_question": attribute.questions[other_question].format(person.name),
        "paraphrased_answer": paraphrase.format(person.name, value),
        "perturbed_answers": [paraphrase.format(person.name, wrong_value) for wrong_value in wrong],
        "alternate": REFUSALS[refusal % len(REFUSALS)],
        "entity": person.name,
        "attribute": name,
        "relation": relation[0],
        "neighbour": relation[1],
        "sources": list(person.sources),
    }


def _draw_wordings(rng: np.random.Generator, persons: int, attributes: int) -> np.ndarray:
    """Return int64[persons, attributes]: for every three persons a permutation of 0, 1, 2 by attribute."""
    triples = np.tile(np.arange(3), (-(-persons // 3), attributes, 1))
    return rng.permuted(triples, axis=2).transpose(0, 2, 1).reshape(-1, attributes)[:persons]
