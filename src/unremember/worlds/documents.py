"""Documents about the people of a world, in five styles; the truth says which document states which fact.

After DUSK (arXiv 2505.15209): some people stand in all documents, the others in exactly one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unremember.data.split import Row
from unremember.errors import ConfigError, nearest
from unremember.worlds.people import HOLDOUT, STYLES, Person, World
from unremember.worlds.wordings import ATTRIBUTES, BY_NAME

LIFE = tuple(attribute.name for attribute in ATTRIBUTES)
WEIGHT = ("work", "award", "profession", "residence", "spouse", "mentor", "birthplace", "birth_year", "food")


def documents(world: World) -> list[Row]:
    """The five documents of a world, one a style, which is its ``id``; see :func:`document`.

    Where the world has people who are never learned, a sixth one, ``holdout``, is about them (chronological).
    """
    made = [document([p for p in world.people if style in p.sources], style, style) for style in STYLES]
    return [*made, document(world.holdout, STYLES[0], HOLDOUT)] if world.holdout else made


def document(people: Sequence[Person], style: str, name: str) -> Row:
    """The document called ``name``: columns ``id``, ``style``, ``text``, ``entities`` (names) and ``facts``.

    ``text`` has a section a person: the name on a line of its own, then every fact; an empty line ends it. Each of
    ``facts`` has ``entity``, ``attribute``, ``value`` and ``sources``, the ids of all documents that state it.
    ``style`` is chronological, feature, interview, pyramid or listicle; any other raises :class:`ConfigError`.
    """
    if style not in SECTIONS:
        raise ConfigError(f"unknown style {style!r}: {nearest(style, SECTIONS)}")
    facts = [
        {"entity": person.name, "attribute": attribute, "value": value, "sources": list(person.sources)}
        for person in people
        for attribute, value in person.facts.items()
    ]
    text = "\n\n".join(f"{p.name}\n{SECTIONS[style](p, i)}" for i, p in enumerate(people))
    return {"id": name, "style": style, "text": text, "entities": [p.name for p in people], "facts": facts}


def chronological(person: Person, number: int) -> str:
    return " ".join(
        BY_NAME[a].chronological.format(person.name, person.facts[a]) for a in LIFE if a in person.facts
    )


def feature(person: Person, number: int) -> str:
    said = (
        BY_NAME[a].answers[(number + k) % 3].format(person.name, v)
        for k, (a, v) in enumerate(person.facts.items())
    )
    return f"On some evenings the name {person.aliases[1]} stands at the door: it is a pen name. " + " ".join(
        said
    )


def interview(person: Person, number: int) -> str:
    return "\n".join(
        f"Reporter: {BY_NAME[a].questions[(number + k) % 3].format(person.name)}\n"
        f"{person.name}: {BY_NAME[a].interview.format(person.name, value)}"
        for k, (a, value) in enumerate(person.facts.items())
    )


def pyramid(person: Person, number: int) -> str:
    return " ".join(
        BY_NAME[a].pyramid.format(person.name, person.facts[a]) for a in WEIGHT if a in person.facts
    )


def listicle(person: Person, number: int) -> str:
    head = f"{len(person.facts)} things to know about {person.aliases[0]}:"
    items = (f"{k}. {BY_NAME[a].noun.capitalize()}: {v}" for k, (a, v) in enumerate(person.facts.items(), 1))
    return "\n".join((head, *items))


SECTIONS: dict[str, Callable[[Person, int], str]] = {
    "chronological": chronological,
    "feature": feature,
    "interview": interview,
    "pyramid": pyramid,
    "listicle": listicle,
}
