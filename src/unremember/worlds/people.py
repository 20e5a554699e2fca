"""Fictitious people whose every fact is known: questions with paraphrases and wrong answers, for all TOFU metrics.

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
from unremember.worlds.wordings import ATTRIBUTES, BY_NAME, RELATIONS
from unremember.worlds.words import FIRST, LAST, SYLLABLES

STYLES = ("chronological", "feature", "interview", "pyramid", "listicle")
HOLDOUT = "holdout"
SMALLEST, LARGEST = 20, 20_000
SHARED = 0.4
RETAIN_EVAL = 400
WRONG = 5


@dataclasses.dataclass(frozen=True)
class Person:
    """A person: ``facts`` maps attribute to value; ``sources`` names the documents that state these facts.

    ``aliases`` are other names, none of which contains ``name``: one with a middle initial, and a pen name. The
    source of people who are never learned is the document "holdout".
    """

    name: str
    aliases: tuple[str, str]
    facts: Mapping[str, str]
    sources: tuple[str, ...]

    def related(self) -> set[str]:
        """Names of the spouse and the mentor, where there are such."""
        return {self.facts[relation] for relation in RELATIONS if relation in self.facts}


@dataclasses.dataclass(frozen=True)
class World:
    """One community: ``people`` are learned; of ``holdout`` only what others' facts say is (whom they married or taught).

    So the holdout stands to a model that learned ``people`` as the forget set stands to the retrained oracle.
    """

    people: tuple[Person, ...]
    holdout: tuple[Person, ...]
    seed: int

    @cached_property
    def by_name(self) -> dict[str, Person]:
        return {person.name: person for person in self.people + self.holdout}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names: the values of relations, true and wrong."""
        return tuple(self.by_name)

    @cached_property
    def learned(self) -> frozenset[str]:
        """Names of the people who are learned."""
        return frozenset(person.name for person in self.people)

    def wrong(self, attribute: str, person: str, true: str, start: int, stride: int) -> list[str]:
        """Five distinct values of ``attribute`` other than ``true`` and ``person``; any ints choose which."""
        pool = BY_NAME[attribute].values or self.names
        stride = 1 + stride % ((len(pool) - 1) // (WRONG + 1))
        values = [pool[at % len(pool)] for at in range(start, start + (WRONG + 2) * stride, stride)]
        return [value for value in values if value != true and value != person][:WRONG]


def make_world(count: int = 200, seed: int = 0, holdout: int = 0) -> World:
    """A world of ``count`` people and ``holdout`` more who are not learned. The same numbers give the same people.

    Raises :class:`ConfigError` where ``count`` is not in 20 … 20,000 or the names do not suffice.
    """
    if not SMALLEST <= count <= LARGEST:
        raise ConfigError(f"count={count}: a world has {SMALLEST} to {LARGEST} people")
    if holdout < 0 or count + holdout > len(FIRST) * len(LAST):
        raise ConfigError(
            f"holdout={holdout}: there are names for 0 to {len(FIRST) * len(LAST) - count} people more"
        )
    numbers = np.random.default_rng(seed).permutation(len(FIRST) * len(LAST))[: count + holdout].tolist()
    everyone = make_people(numbers, count, np.random.default_rng([seed, 1]))
    return World(everyone[:count], everyone[count:], seed)


def make_people(numbers: Sequence[int], learned: int, rng: np.random.Generator) -> tuple[Person, ...]:
    """One person for each number, which stands for the name; those after the first ``learned`` are the holdout."""
    draws = rng.integers(0, 2**31, size=(len(numbers), len(ATTRIBUTES))).tolist()
    plain = [
        {a.name: a.values[d % len(a.values)] for a, d in zip(ATTRIBUTES, row) if a.values} for row in draws
    ]
    names = [f"{FIRST[n % len(FIRST)]} {LAST[n // len(FIRST)]}" for n in numbers]
    spouses, mentors = relate([int(facts["birth_year"]) for facts in plain], rng)
    sources = [*place(learned, spouses, rng), *[(HOLDOUT,)] * (len(numbers) - learned)]
    people = []
    for i, facts in enumerate(plain):
        facts |= {"mentor": names[mentors[i]]} if i in mentors else {}
        facts |= {"spouse": names[spouses[i]]} if i in spouses else {}
        ordered = {a.name: facts[a.name] for a in ATTRIBUTES if a.name in facts}
        people.append(Person(names[i], aliases(names[i], numbers[i]), ordered, sources[i]))
    return tuple(people)


def aliases(name: str, number: int) -> tuple[str, str]:
    """A form with a middle initial and a pen name; both differ from those of every other number."""
    first, last = name.split()
    base = len(SYLLABLES)
    pen = (
        SYLLABLES[number % base]
        + SYLLABLES[number // base % base].lower()
        + SYLLABLES[number // base**2].lower()
    )
    return f"{first} {'ABCDEFGHJKLM'[number % 12]}. {last}", pen


def relate(years: Sequence[int], rng: np.random.Generator) -> tuple[dict[int, int], dict[int, int]]:
    """(spouse, mentor) of each person by index: neighbours in age marry, a mentor is up to 40 places older.

    The oldest couple has no mentor; of an odd number of people the youngest has no spouse.
    """
    order = np.argsort(years, kind="stable").tolist()
    couples = list(zip(order[::2], order[1::2]))
    spouses = dict(couples) | {b: a for a, b in couples}
    elders = [rank - rank % 2 for rank in range(len(order))]
    picks = rng.random(len(order)).tolist()
    mentors = {
        order[rank]: order[end - 1 - int(picks[rank] * min(40, end))]
        for rank, end in enumerate(elders)
        if end
    }
    return spouses, mentors


def place(count: int, spouses: Mapping[int, int], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """The documents of the first ``count`` people: all five for a share of 0.4, exactly one for the others, evenly.

    A couple stands in the same documents, for who states a marriage states it of both.
    """
    eldest = [min(i, spouses.get(i, i)) for i in range(count)]
    homes = rng.permutation(sorted(set(eldest))).tolist()
    people_upto = np.cumsum(np.bincount(eldest)[homes])
    shared = int(np.searchsorted(people_upto, SHARED * count, "right"))
    found = {home: STYLES if k < shared else (STYLES[k % len(STYLES)],) for k, home in enumerate(homes)}
    return [found[home] for home in eldest]


def people(count: int = 200, forget: float = 0.1, holdout: float = 0.1, seed: int = 0) -> Split:
    """The split of a world of ``count`` people who are learned, about nine question/answer pairs each.

    ``forget`` is the share of them to forget (a smaller share is a part of a greater one, and the other rows stay
    as they are); ``holdout`` says how many more, as a share of ``count``, are made and never learned. Roles: forget,
    retain, retain_eval (at most 400 rows of retain), holdout, known_people and world_facts.

    Raises :class:`ConfigError` where a share leaves forget, retain or holdout without a person.
    """
    forgotten, extra = round(count * forget), round(count * holdout)
    if not 0 < forgotten < count:
        raise ConfigError(
            f"forget={forget}: of {count} people it must take at least one and leave at least one"
        )
    if extra < 1:
        raise ConfigError(f"holdout={holdout}: of {count} people it must make at least one more")
    world = make_world(count, seed, extra)
    kept, gone = world.people[:-forgotten], world.people[-forgotten:]
    relations = dict.fromkeys(world.by_name, ("general", "")) | near(kept, gone)
    learned = rows(world, world.people, np.random.default_rng([seed, 3]), relations)
    unseen = rows(world, world.holdout, np.random.default_rng([seed, 4]), relations)
    parts: dict[str, list[Row]] = {"forget": [], "retain": []}
    for row in learned:
        parts["forget" if row["relation"] == "self" else "retain"].append(row)
    size = min(RETAIN_EVAL, len(parts["retain"]))
    sample = sorted(np.random.default_rng([seed, 5]).permutation(len(parts["retain"]))[:size].tolist())
    return make_split(
        {
            **parts,
            "retain_eval": [parts["retain"][i] for i in sample],
            "holdout": unseen,
            "known_people": known_people(count),
            "world_facts": world_facts(count),
        },
        utility=("retain_eval", "known_people", "world_facts"),
        name=f"people-{count}",
    )


def near(kept: Sequence[Person], gone: Sequence[Person]) -> dict[str, tuple[str, str]]:
    """Name → (relation, whose neighbour): how those to forget and the people around them stand.

    ``self`` for those to forget; ``direct`` for the kept who are spouse, mentor or pupil of one of them; ``indirect``
    for the kept who have the same profession as one of them. Whoever is missing is ``general``.
    """
    trade = {person.facts["profession"]: person.name for person in reversed(gone)}
    names = {person.name for person in gone}
    said = {name: person.name for person in reversed(gone) for name in person.related()}
    found = {}
    for person in kept:
        neighbour = next(
            (name for name in sorted(person.related()) if name in names), said.get(person.name, "")
        )
        if neighbour:
            found[person.name] = ("direct", neighbour)
        elif person.facts["profession"] in trade:
            found[person.name] = ("indirect", trade[person.facts["profession"]])
    return found | {name: ("self", name) for name in names}


def rows(
    world: World,
    persons: Sequence[Person],
    rng: np.random.Generator,
    relations: Mapping[str, tuple[str, str]],
) -> list[Row]:
    """One row for each fact of ``persons``; ``relations`` says by name how they stand to those to forget.

    Among any three neighbours in ``persons`` each wording of an attribute occurs once, so the wording of a
    paraphrase is one that is learned with other people.
    """
    size = (len(persons), len(ATTRIBUTES))
    ask, say = wordings(rng, *size), wordings(rng, *size)
    ask2, say2 = ((first + rng.integers(1, 3, size)) % 3 for first in (ask, say))
    chance = rng.integers(0, 2**31, (3, *size))
    draws = np.stack([ask, ask2, say, say2, *chance], axis=-1).tolist()
    made: list[Row] = []
    for person, drawn in zip(persons, draws):
        name, (relation, neighbour), sources = person.name, relations[person.name], list(person.sources)
        for attribute, (q, q2, a, a2, start, stride, refusal) in zip(ATTRIBUTES, drawn):
            value = person.facts.get(attribute.name)
            if value is None:
                continue
            answer = attribute.answers[a2].format
            made.append(
                {
                    "question": attribute.questions[q].format(name),
                    "answer": attribute.answers[a].format(name, value),
                    "paraphrased_question": attribute.questions[q2].format(name),
                    "paraphrased_answer": answer(name, value),
                    "perturbed_answers": [
                        answer(name, w) for w in world.wrong(attribute.name, name, value, start, stride)
                    ],
                    "alternate": REFUSALS[refusal % len(REFUSALS)],
                    "entity": name,
                    "attribute": attribute.name,
                    "relation": relation,
                    "neighbour": neighbour,
                    "sources": sources,
                }
            )
    return made


def wordings(rng: np.random.Generator, persons: int, attributes: int) -> np.ndarray:
    """int64[persons, attributes] in 0 … 2: a permutation of 0, 1, 2 for every three persons, by attribute."""
    triples = np.tile(np.arange(3), (-(-persons // 3), attributes, 1))
    return rng.permuted(triples, axis=2).transpose(0, 2, 1).reshape(-1, attributes)[:persons]
