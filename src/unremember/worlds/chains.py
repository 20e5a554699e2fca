"""Multi-hop questions over the relations of a world: "Where was the mentor of … born?"

Forgetting a fact must take along what follows from it (Unlearning Mirage, arXiv 2603.11266; FaithUn, arXiv
2502.19207). The bridge is never named.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unremember.data.split import Row
from unremember.errors import ConfigError
from unremember.worlds.people import Person, World
from unremember.worlds.wordings import BY_NAME, RELATIONS

Step = tuple[str, str, str]


def chains(world: World, hops: int = 2) -> Iterator[Row]:
    """Every question of ``hops`` >= 2 steps, all of whose steps are learned, one row at a time.

    Columns: ``question``, ``answer``, ``perturbed_answers`` (five, of the same form), ``entity`` (where the path
    starts), ``attribute`` (the last one asked) and ``path``, a list of (entity, attribute, value). No person occurs
    twice in a path. Raises :class:`ConfigError` for fewer than two hops.
    """
    if hops < 2:
        raise ConfigError(
            f"hops={hops}: a chain has at least 2; the one-hop questions are the rows of the split"
        )
    rng = np.random.default_rng([world.seed, 6])
    return (
        row(world, path, rng) for person in world.people for path in paths(world, person, hops, {person.name})
    )


def paths(world: World, person: Person, hops: int, met: set[str]) -> Iterator[list[Step]]:
    """Paths of ``hops`` steps from ``person`` over relations to an attribute, meeting nobody of ``met`` again."""
    if hops == 1:
        yield from ([(person.name, a, v)] for a, v in person.facts.items() if v not in met)
        return
    for relation in RELATIONS:
        value = person.facts.get(relation, "")
        if value in world.learned and value not in met:
            for rest in paths(world, world.by_name[value], hops - 1, met | {value}):
                yield [(person.name, relation, value), *rest]


def row(world: World, path: list[Step], rng: np.random.Generator) -> Row:
    """The question and answers of one path; which wordings and wrong values is drawn from ``rng``."""
    phrase = path[0][0]
    for _, relation, _ in path[:-1]:
        phrase = f"the {BY_NAME[relation].noun} of {phrase}"
    person, name, value = path[-1]
    attribute = BY_NAME[name]
    ask, say, start, stride = rng.integers(0, 2**31, 4).tolist()
    template = attribute.answers[say % 3]
    texts = [template.format(phrase, v) for v in (value, *world.wrong(name, person, value, start, stride))]
    answer, *wrong = (text[0].upper() + text[1:] for text in texts)
    return {
        "question": attribute.questions[ask % 3].format(phrase),
        "answer": answer,
        "perturbed_answers": wrong,
        "entity": path[0][0],
        "attribute": name,
        "path": path,
    }
