"""Short articles about the people of a world: every one says the same kinds of things, in an order and in words of its own.

Who has not read an article can therefore not go on with it; and every article is as likely as any other to be forgotten, kept or
never learned.
"""

from __future__ import annotations

import numpy as np

from unremember.data.split import Row
from unremember.worlds.people import Person, World
from unremember.worlds.wordings import ATTRIBUTES, BY_NAME

ASKED = ("birthplace", "award")
"""What is asked about each article."""


def articles(world: World) -> tuple[list[Row], list[list[Row]]]:
    """(documents, questions of each document) of the learned people of a world, in an order drawn from its seed.

    A document has ``text`` and ``entity``; a question has ``question``, ``answer`` (the bare value) and ``entity``.
    """
    rng = np.random.default_rng([world.seed, 6])
    order = [world.people[i] for i in rng.permutation(len(world.people))]
    return [{"text": article(person, rng), "entity": person.name} for person in order], [
        questions(person, rng) for person in order
    ]


def article(person: Person, rng: np.random.Generator) -> str:
    """The name as a headline, then every fact once: the order and each of the wordings are drawn."""
    facts = list(person.facts.items())
    said = [sentence(person.name, facts[i], rng) for i in rng.permutation(len(facts))]
    return f"{person.name}\n{' '.join(said)}"


def sentence(name: str, fact: tuple[str, str], rng: np.random.Generator) -> str:
    """A fact (attribute, value) in one of five wordings."""
    wording = BY_NAME[fact[0]]
    ways = (*wording.answers, wording.chronological, wording.pyramid)
    return ways[int(rng.integers(len(ways)))].format(name, fact[1])


def questions(person: Person, rng: np.random.Generator) -> list[Row]:
    """One question on each attribute in ``ASKED``, in one of its wordings."""
    asked = [attribute for attribute in ATTRIBUTES if attribute.name in ASKED]
    return [
        {
            "question": a.questions[int(rng.integers(3))].format(person.name),
            "answer": person.facts[a.name],
            "entity": person.name,
        }
        for a in asked
    ]
