"""General knowledge of the generated worlds, beside their people: the same for every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unremember.data.split import Row

_CELEBRITY_QUESTIONS = {
    "discovery": "What did the scholar {0} discover?",
    "city": "In which city did the scholar {0} teach?",
    "language": "In which language did the scholar {0} write?",
}
_CELEBRITIES = {
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
_COUNTRY_QUESTIONS = {
    "capital": "What is the capital of {0}?",
    "river": "What is the longest river of {0}?",
    "mountain": "What is the highest mountain of {0}?",
    "currency": "What is the currency of {0}?",
}
_COUNTRIES = {
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
    """Return three questions on each of up to ten scholars; a world of few people (``count``) has fewer."""
    return _general_rows(_CELEBRITY_QUESTIONS, _CELEBRITIES, count)


def world_facts(count: int) -> list[Row]:
    """Return four questions on each of up to ten countries; a world of few people (``count``) has fewer."""
    return _general_rows(_COUNTRY_QUESTIONS, _COUNTRIES, count)


def _general_rows(
    questions: Mapping[str, str], entries: Mapping[str, Sequence[str]], count: int
) -> list[Row]:
    """Return a row for each question on each subject; wrong answers are those of the next three subjects."""
    subjects = list(entries)[: min(len(entries), 4 + count // 20)]
    rows: list[Row] = []
    for i, subject in enumerate(subjects):
        next_subjects = [subjects[(i + k) % len(subjects)] for k in (1, 2, 3)]
        for column, (attribute, question) in enumerate(questions.items()):
            rows.append(
                {
                    "question": question.format(subject),
                    "answer": entries[subject][column],
                    "perturbed_answers": [entries[name][column] for name in next_subjects],
                    "entity": subject,
                    "attribute": attribute,
                    "relation": "general",
                }
            )
    return rows
