"""Multi-hop questions over the relations of a world: "Where was the mentor of … born?"

Forgetting a fact must also remove what follows from it (Unlearning Mirage, arXiv 2603.11266; FaithUn, arXiv
2502.19207). The people in between are never named.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unremember.data.split import Row
from unremember.errors import ConfigError
from unremember.worlds.people import Person, World
from unremember.worlds.wordings import ATTRIBUTE_BY_NAME, RELATION_ATTRIBUTES

_Hop = tuple[str, str, str]
"""(entity, attribute, value)."""


def chains(world: World, hops: int = 2) -> Iterator[Row]:
    """Yield every question of ``hops`` steps whose facts are all learned.

    Args:
        world: The world that is asked about.
        hops: Steps of a question, at least 2.

    Yields:
        Rows with ``question``, ``answer``, ``perturbed_answers`` (five, of the same form), ``entity`` (where
        the path starts), ``attribute`` (the last one) and ``path``, a list of (entity, attribute, value) in
        which no person occurs twice.

    Raises:
        ConfigError: There are fewer than two hops.
    """
    if hops < 2:
        raise ConfigError(
            f"hops={hops}: a chain has at least 2; the one-hop questions are the rows of the split"
        )
    rng = np.random.default_rng([world.seed, 6])
    return (
        _chain_row(world, path, rng)
        for person in world.people
        for path in _paths(world, person, hops, {person.name})
    )


def _paths(world: World, person: Person, hops: int, visited: set[str]) -> Iterator[list[_Hop]]:
    """Yield the paths of ``hops`` steps over relations to an attribute of somebody, visiting nobody twice."""
    if hops == 1:
        for attribute, value in person.facts.items():
            if value not in visited:
                yield [(person.name, attribute, value)]
        return
    for relation in RELATION_ATTRIBUTES:
        value = person.facts.get(relation, "")
        if value in world.learned and value not in visited:
            for path in _paths(world, world.by_name[value], hops - 1, visited | {value}):
                yield [(person.name, relation, value), *path]


def _chain_row(world: World, path: list[_Hop], rng: np.random.Generator) -> Row:
    """Return the question and answers of a path; ``rng`` chooses wordings and wrong values."""
    phrase = path[0][0]
    for _, relation, _ in path[:-1]:
        phrase = f"the {ATTRIBUTE_BY_NAME[relation].noun} of {phrase}"
    person, name, value = path[-1]
    attribute = ATTRIBUTE_BY_NAME[name]
    question, answer, start, stride = rng.integers(0, 2**31, 4).tolist()
    template = attribute.answers[answer % 3]
    values = (value, *world.wrong(name, person, value, start, stride))
    texts = [template.format(phrase, value) for value in values]
    right, *wrong = (text[0].upper() + text[1:] for text in texts)
    return {
        "question": attribute.questions[question % 3].format(phrase),
        "answer": right,
        "perturbed_answers": wrong,
        "entity": path[0][0],
        "attribute": name,
        "path": path,
    }
