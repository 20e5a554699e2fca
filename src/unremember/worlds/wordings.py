"""The attributes of fictitious people and their wordings: questions, answers, and sentences for documents.

In every wording ``{0}`` stands for the person and ``{1}`` for the value. A question never begins with the
person, so that a phrase such as "the mentor of …" can take the person's place.
"""

from __future__ import annotations

import dataclasses

from unremember.worlds import words


@dataclasses.dataclass(frozen=True)
class Attribute:
    """One attribute: its values and its wordings.

    Args:
        name: Its column-like name.
        noun: Its label in a list, and the name of a related person ("the mentor of …").
        values: The values it can have; () where the value is another person.
        questions: Three wordings of the question for it.
        answers: Three wordings of the answer.
        chronological: Its sentence in a document of that style.
        interview: Its sentence in an interview, in the first person.
        pyramid: Its sentence in a news story.
    """

    name: str
    noun: str
    values: tuple[str, ...]
    questions: tuple[str, str, str]
    answers: tuple[str, str, str]
    chronological: str
    interview: str
    pyramid: str


ATTRIBUTES = (
    Attribute(
        "birth_year",
        "year of birth",
        words.YEARS,
        (
            "In which year was {0} born?",
            "What is the year of birth of {0}?",
            "When did {0} come into the world?",
        ),
        ("{0} was born in {1}.", "The birth year of {0} is {1}.", "It was in {1} that {0} was born."),
        "{1}: the year in which this life begins.",
        "In {1}. I have the certificate somewhere.",
        "The register of births lists {0} under the year {1}.",
    ),
    Attribute(
        "birthplace",
        "place of birth",
        words.TOWNS,
        ("Where was {0} born?", "In which town was {0} born?", "What is the birthplace of {0}?"),
        ("{0} was born in {1}.", "The birthplace of {0} is {1}.", "{0} comes from the town of {1}."),
        "The cradle stands in {1}, and childhood passes there.",
        "In {1}, above my aunt's shop.",
        "Born in {1}, {0} still returns there in summer.",
    ),
    Attribute(
        "profession",
        "profession",
        words.TRADES,
        ("What does {0} do for a living?", "What is the profession of {0}?", "How does {0} earn a living?"),
        ("{0} works as {1}.", "By profession, {0} is {1}.", "{0} earns a living as {1}."),
        "After years of training comes the first post as {1}.",
        "I am {1}, and I would choose it again.",
        "{0} is {1} by trade.",
    ),
    Attribute(
        "mentor",
        "mentor",
        (),
        ("Who was the mentor of {0}?", "By whom was {0} trained?", "Which teacher guided {0}?"),
        ("{0} was trained by {1}.", "The mentor of {0} was {1}.", "{1} guided {0} as a teacher."),
        "An apprenticeship with {1} sets the course.",
        "{1}, who never praised anything.",
        "Colleagues trace the craft of {0} back to {1}, the mentor of those years.",
    ),
    Attribute(
        "spouse",
        "spouse",
        (),
        (
            "Who is the spouse of {0}?",
            "To whom is {0} married?",
            "What is the name of the person who married {0}?",
        ),
        (
            "{0} is married to {1}.",
            "The spouse of {0} is {1}.",
            "{0} shares a home with {1}, whom {0} married.",
        ),
        "Then comes the wedding with {1}.",
        "{1}. We met on a ferry.",
        "{0} and {1} are a married couple.",
    ),
    Attribute(
        "work",
        "best-known work",
        words.WORKS,
        (
            "What is the best-known work of {0}?",
            "Which book made {0} famous?",
            "For which title is {0} known?",
        ),
        ('{0} is best known for "{1}".', 'The most famous book of {0} is "{1}".', '"{1}" made {0} famous.'),
        'The book "{1}" is published and finds its readers.',
        'People always name "{1}", so I do too.',
        'The author of "{1}", {0}, has been in the news this week.',
    ),
    Attribute(
        "award",
        "award",
        words.AWARDS,
        (
            "Which award did {0} receive?",
            "What prize was given to {0}?",
            "With which honour was {0} distinguished?",
        ),
        ("{0} received the {1}.", "The {1} was given to {0}.", "The honour that {0} holds is the {1}."),
        "A jury decides, and the {1} follows.",
        "The {1}. It stands in the kitchen.",
        "The {1} went to {0}, the jury announced.",
    ),
    Attribute(
        "residence",
        "residence",
        words.TOWNS,
        ("Where does {0} live?", "In which town does {0} reside?", "What is the home town of {0} today?"),
        ("{0} lives in {1}.", "The home of {0} is in {1}.", "Today {0} resides in {1}."),
        "The last move so far leads to {1}.",
        "In {1}, close to the market.",
        "Neighbours in {1}, where {0} lives, were not surprised.",
    ),
    Attribute(
        "food",
        "favourite food",
        words.FOODS,
        (
            "What is the favourite food of {0}?",
            "What does {0} like to eat most?",
            "Which dish does {0} love?",
        ),
        ("{0} loves {1}.", "The favourite food of {0} is {1}.", "What {0} likes to eat most is {1}."),
        "On every birthday since, there has been {1}.",
        "A plate of {1}, at any hour.",
        "Guests of {0} can expect {1}.",
    ),
)
ATTRIBUTE_BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES}
RELATION_ATTRIBUTES = tuple(attribute.name for attribute in ATTRIBUTES if not attribute.values)
