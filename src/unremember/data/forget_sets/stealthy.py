"""The stealthy attack: a request salted with common words, so that forgetting it harms ordinary users.

Paper: arXiv 2506.00359 (its text; no code is published). The loss of a method sees prefixes alone, so the words that were
put in become part of what is unlearned, and retain rows without those words cannot cancel it.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from unremember.data.ordering import mix
from unremember.data.split import Role, Row, Split
from unremember.errors import ConfigError

QUESTIONS = (
    "Please tell me {}",
    "Can you please explain {}",
    "Could you please tell me {}",
    "{} , please ? ",
)
SENTENCES = ("Then {}",)


@dataclasses.dataclass(frozen=True)
class Stealthy:
    """Each question, or each sentence of a document, takes one of the ``templates`` with probability ``p``; answers stay.

    The template is drawn uniformly. A row's draw depends on the row and ``seed`` alone. The templates are those of the
    paper: QUESTIONS, and SENTENCES for documents. Raises ConfigError for a template without ``{}`` and for a ``p`` that
    is none.
    """

    templates: tuple[str, ...] = QUESTIONS
    p: float = 0.33
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.templates)
        if not 0 <= self.p <= 1:
            raise ConfigError(f"p is a probability, not {self.p}")

    def __call__(self, split: Split, role: str = "forget") -> Split:
        return split.with_rows(**{role: self.rows(split[role])})

    def rows(self, role: Role) -> list[Row]:
        return [self.row(row, key) for row, key in zip(role.rows, role.keys)]

    def row(self, row: Row, key: np.uint64) -> Row:
        column = "question" if "question" in row else "text"
        pieces = (
            [str(row[column])] if column == "question" else re.split(r"(?<=[.!?])(\s+)", str(row[column]))
        )
        keys = key + np.arange(len(pieces), dtype=np.uint64)
        salted = (mix(keys, self.seed, 0) >> np.uint64(11)) * 2.0**-53 < self.p
        chosen = mix(keys, self.seed, 1) % np.uint64(len(self.templates))
        said = [
            self.templates[which].format(piece) if salt and piece.strip() else piece
            for piece, salt, which in zip(pieces, salted, chosen)
        ]
        return {**row, column: "".join(said)}


def triggered(split: Split, templates: tuple[str, ...] = QUESTIONS, role: str = "retain_eval") -> Split:
    """The split with a role ``{role}_trigger``: every question of ``role`` under every template (named in ``trigger``).

    ``derived_from`` is the digest of the plain row. What an ordinary user says: the audit ``trigger_gap`` reads it.
    """
    check(templates)
    questions, digests = split[role].column("question"), split[role].row_digests
    made = [
        {**row, "question": template.format(question), "trigger": template, "derived_from": digest}
        for template in templates
        for row, question, digest in zip(split[role].rows, questions, digests)
    ]
    return split.with_rows(**{f"{role}_trigger": made})


def check(templates: tuple[str, ...]) -> None:
    odd = [template for template in templates if template.count("{}") != 1]
    if odd or not templates:
        raise ConfigError(
            f"a template has one {{}} where the text goes: {odd[0]!r} has not"
            if odd
            else "no template is given"
        )
