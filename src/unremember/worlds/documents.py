"""Documents about the people of a world in five styles, and which document states which fact.

After DUSK (arXiv 2505.15209): some people are in all documents, the others in exactly one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unremember.data.split import Row
from unremember.errors import ConfigError, did_you_mean
from unremember.worlds.people import DOCUMENT_STYLES, HOLDOUT_DOCUMENT, Person, World
from unremember.worlds.wordings import ATTRIBUTE_BY_NAME, ATTRIBUTES

_BY_TIME = tuple(attribute.name for attribute in ATTRIBUTES)
_BY_NEWS_VALUE = (
    "work",
    "award",
    "profession",
    "residence",
    "spouse",
    "mentor",
    "birthplace",
    "birth_year",
    "food",
)


def documents(world: World) -> list[Row]:
    """Return the five documents of a world, one for each style (also its ``id``); see ``document``.

    If the world has people who are never learned, a sixth document, ``holdout``, is about them
    (chronological).
    """
    learned = [
        document([person for person in world.people if style in person.sources], style, style)
        for style in DOCUMENT_STYLES
    ]
    if not world.holdout:
        return learned
    return [*learned, document(world.holdout, DOCUMENT_STYLES[0], HOLDOUT_DOCUMENT)]


def document(people: Sequence[Person], style: str, name: str) -> Row:
    """Write one document.

    Args:
        people: The people it is about, a section each.
        style: chronological, feature, interview, pyramid or listicle.
        name: Its id.

    Returns:
        A row with ``id``, ``style``, ``text``, ``entities`` (the people's names) and ``facts``. A section of
        the text has the name on a line of its own, then every fact; an empty line ends it. A fact has
        ``entity``, ``attribute``, ``value`` and ``sources``, the ids of all documents that state it.

    Raises:
        ConfigError: The style is unknown.
    """
    if style not in _SECTIONS:
        raise ConfigError(f"unknown style {style!r}: {did_you_mean(style, _SECTIONS)}")
    facts = [
        {"entity": person.name, "attribute": attribute, "value": value, "sources": list(person.sources)}
        for person in people
        for attribute, value in person.facts.items()
    ]
    sections = (f"{person.name}\n{_SECTIONS[style](person, i)}" for i, person in enumerate(people))
    names = [person.name for person in people]
    return {"id": name, "style": style, "text": "\n\n".join(sections), "entities": names, "facts": facts}


def _chronological(person: Person, number: int) -> str:
    return " ".join(
        ATTRIBUTE_BY_NAME[name].chronological.format(person.name, person.facts[name])
        for name in _BY_TIME
        if name in person.facts
    )


def _feature(person: Person, number: int) -> str:
    sentences = (
        ATTRIBUTE_BY_NAME[name].answers[(number + i) % 3].format(person.name, value)
        for i, (name, value) in enumerate(person.facts.items())
    )
    opening = f"On some evenings the name {person.aliases[1]} stands at the door: it is a pen name. "
    return opening + " ".join(sentences)


def _interview(person: Person, number: int) -> str:
    return "\n".join(
        f"Reporter: {ATTRIBUTE_BY_NAME[name].questions[(number + i) % 3].format(person.name)}\n"
        f"{person.name}: {ATTRIBUTE_BY_NAME[name].interview.format(person.name, value)}"
        for i, (name, value) in enumerate(person.facts.items())
    )


def _pyramid(person: Person, number: int) -> str:
    return " ".join(
        ATTRIBUTE_BY_NAME[name].pyramid.format(person.name, person.facts[name])
        for name in _BY_NEWS_VALUE
        if name in person.facts
    )


def _listicle(person: Person, number: int) -> str:
    head = f"{len(person.facts)} things to know about {person.aliases[0]}:"
    items = (
        f"{i}. {ATTRIBUTE_BY_NAME[name].noun.capitalize()}: {value}"
        for i, (name, value) in enumerate(person.facts.items(), 1)
    )
    return "\n".join((head, *items))


_SECTIONS: dict[str, Callable[[Person, int], str]] = {
    "chronological": _chronological,
    "feature": _feature,
    "interview": _interview,
    "pyramid": _pyramid,
    "listicle": _listicle,
}
"""By style: the section about a person, who is the document's i-th."""
