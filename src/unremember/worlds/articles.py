"""Short articles about the people of a world.

Every article says the same kinds of things, in an order and wordings of its own. So a model that has not read
an article cannot continue it, and every article is equally likely to be forgotten, retained or never learned.
"""

from __future__ import annotations

import numpy as np

from unremember.data.split import Row
from unremember.worlds.people import Person, World
from unremember.worlds.wordings import ATTRIBUTE_BY_NAME, ATTRIBUTES

_QUESTION_ATTRIBUTES = ("birthplace", "award")


def articles(world: World) -> tuple[list[Row], list[list[Row]]]:
    """Write an article about each learned person of a world, in an order drawn from the world's seed.

    Returns:
        The documents, with ``text`` and ``entity``, and the two questions about each document, with
        ``question``, ``answer`` (the bare value) and ``entity``.
    """
    rng = np.random.default_rng([world.seed, 6])
    people = [world.people[i] for i in rng.permutation(len(world.people))]
    documents: list[Row] = [{"text": _article(person, rng), "entity": person.name} for person in people]
    return documents, [_questions(person, rng) for person in people]


def _article(person: Person, rng: np.random.Generator) -> str:
    """Return the name as a headline, then every fact once, in a drawn order and wording."""
    facts = list(person.facts.items())
    sentences = [_sentence(person.name, facts[i], rng) for i in rng.permutation(len(facts))]
    return f"{person.name}\n{' '.join(sentences)}"


def _sentence(name: str, fact: tuple[str, str], rng: np.random.Generator) -> str:
    """Return a fact (attribute, value) in one of five wordings."""
    attribute, value = fact
    wording = ATTRIBUTE_BY_NAME[attribute]
    templates = (*wording.answers, wording.chronological, wording.pyramid)
    return templates[int(rng.integers(len(templates)))].format(name, value)


def _questions(person: Person, rng: np.random.Generator) -> list[Row]:
    """Return a question on each of the attributes that are asked about, in one of its wordings."""
    attributes = [attribute for attribute in ATTRIBUTES if attribute.name in _QUESTION_ATTRIBUTES]
    return [
        {
            "question": attribute.questions[int(rng.integers(3))].format(person.name),
            "answer": person.facts[attribute.name],
            "entity": person.name,
        }
        for attribute in attributes
    ]
