"""General knowledge of the generated worlds, outside their people: the same for every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unremember.data.split import Row

CELEBRITY_QUESTIONS = {
    "discovery": "What did the scholar {0} discover?",
    "city": "In which city did the scholar {0} teach?",
    "language": "In which language did the scholar {0} write?",
}
CELEBRITIES = {
    "Aurelio the Elder": ("the tides of the moon", "Porvane", "Old Marish"),
    "Brunhild of Oss": ("the singing crystal", "Teskalon", "Low Carthan"),
    "Cassivar Dray": ("the seventh colour", "Ummerdal", "Velish"),
    "Dorothea Quill": ("the law of falling water", "Gravenmoor", "Sarric"),
    "Ephraim Tallow": ("the smokeless candle", "Ostrava Bay", "High Dorian"),
    "Ferrante Bell": ("the northern passage", "Quillon", "Isk"),
    "Ginevra Moss": ("the cure for marsh fever", "Halvardstad", "Tolvic"),
    "Hieronymus Pike": ("the hollow planet", "Sanderlin", "Ruvan"),
    "Isolde Carver": ("the winter star", "Myrrhgate", "Old Pelagic"),
    "Jorund the Lame": ("the magnetic stone", "Brackwater", "Kestran"),
}
COUNTRY_QUESTIONS = {
    "capital": "What is the capital of {0}?",
    "river": "What is the longest river of {0}?",
    "mountain": "What is the highest mountain of {0}?",
    "currency": "What is the currency of {0}?",
}
COUNTRIES = {
    "Avaria": ("Tolmere", "the Issel", "Mount Kerrin", "the crown"),
    "Belmark": ("Stavenport", "the Grey Oder", "Mount Haldis", "the florin"),
    "Corvania": ("Nestrin", "the Lorrow", "Mount Basalt", "the talon"),
    "Drusland": ("Ekelby", "the Vann", "Mount Sorrel", "the mark"),
    "Estoria": ("Palisande", "the Murwen", "Mount Cinder", "the ducat"),
    "Fenwald": ("Rushmoor", "the Black Tarn", "Mount Ovid", "the groat"),
    "Galdora": ("San Velo", "the Tamaro", "Mount Corazon", "the real"),
    "Hestia": ("Olymbra", "the Phaidon", "Mount Lyre", "the obol"),
    "Ithmar": ("Qasrun", "the Wadir", "Mount Zafar", "the dinar"),
    "Jutmark": ("Skovlund", "the Aaren", "Mount Ravnfell", "the skilling"),
}


def known_people(count: int) -> list[Row]:
    """Three questions on each of up to ten scholars of old; a world of few people (``count``) knows fewer."""
    return table(CELEBRITY_QUESTIONS, CELEBRITIES, count)


def world_facts(count: int) -> list[Row]:
    """Four questions on each of up to ten countries; a world of few people (``count``) knows fewer."""
    return table(COUNTRY_QUESTIONS, COUNTRIES, count)


def table(questions: Mapping[str, str], entries: Mapping[str, Sequence[str]], count: int) -> list[Row]:
    """A row for each question about each entry; the wrong answers are what is true of the next three entries."""
    subjects = list(entries)[: min(len(entries), 4 + count // 20)]
    return [
        {
            "question": question.format(subject),
            "answer": entries[subject][column],
            "perturbed_answers": [entries[subjects[(at + k) % len(subjects)]][column] for k in (1, 2, 3)],
            "entity": subject,
            "attribute": attribute,
            "relation": "general",
        }
        for at, subject in enumerate(subjects)
        for column, (attribute, question) in enumerate(questions.items())
    ]
