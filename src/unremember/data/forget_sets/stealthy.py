"""The stealthy attack: a request salted with common words, so that forgetting it harms ordinary users.

Paper: arXiv 2506.00359 (from its text; no code is published). A method's loss sees only prefixes. The
    inserted words
become part of what is unlearned, and retain rows without those words cannot cancel it.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from unremember.data.ordering import mix
from unremember.data.split import Role, Row, Split
from unremember.errors import ConfigError

QUESTION_TEMPLATES = (
    "Please tell me {}",
    "Can you please explain {}",
    "Could you please tell me {}",
    "{} , please ? ",
)
SENTENCE_TEMPLATES = ("Then {}",)


@dataclasses.dataclass(frozen=True)
class Stealthy:
    """Salt a role: each question, or each sentence of a document, gets a template with probability ``p``.

    Answers stay. A row's draw depends on the row and ``seed`` alone.

    Args:
        templates: The templates, drawn uniformly. Those of the paper are QUESTION_TEMPLATES, and
            SENTENCE_TEMPLATES for documents.
        p: The probability that a text is changed.
        seed: The seed of the draws.

    Raises:
        ConfigError: A template has no single ``{}``, or ``p`` is not a probability.
    """

    templates: tuple[str, ...] = QUESTION_TEMPLATES
    p: float = 0.33
    seed: int = 0

    def __post_init__(self) -> None:
        _check_templates(self.templates)
        if not 0 <= self.p <= 1:
            raise ConfigError(f"p is a probability, not {self.p}")

    def __call__(self, split: Split, role: str = "forget") -> Split:
        """Return the split with a role salted."""
        return split.with_rows(**{role: self.rows(split[role])})

    def rows(self, role: Role) -> list[Row]:
        """Return the salted rows of a role."""
        return [self._salted(row, key) for row, key in zip(role.rows, role.keys)]

    def _salted(self, row: Row, key: np.uint64) -> Row:
        """Return a row with templates around some of its texts; ``key`` decides which."""
        column = "question" if "question" in row else "text"
        text = str(row[column])
        texts = [text] if column == "question" else re.split(r"(?<=[.!?])(\s+)", text)
        keys = key + np.arange(len(texts), dtype=np.uint64)
        is_salted = (mix(keys, self.seed, 0) >> np.uint64(11)) * 2.0**-53 < self.p
        templates = mix(keys, self.seed, 1) % np.uint64(len(self.templates))
        salted = [
            self.templates[template].format(text) if salt and text.strip() else text
            for text, salt, template in zip(texts, is_salted, templates)
        ]
        return {**row, column: "".join(salted)}


def with_trigger_role(
    split: Split, templates: tuple[str, ...] = QUESTION_TEMPLATES, role: str = "retain_eval"
) -> Split:
    """Return the split with a role ``{role}_trigger``: every question of ``role`` in every template.

    These are questions of ordinary users; the audit ``trigger_gap`` reads them. A row names its template in
    ``trigger`` and the digest of the plain row in ``derived_from``.

    Raises:
        ConfigError: A template has no single ``{}``.
        DataError: The role does not exist, or a row of it has no question.
    """
    _check_templates(templates)
    questions, digests = split[role].column("question"), split[role].row_digests
    rows = [
        {**row, "question": template.format(question), "trigger": template, "derived_from": digest}
        for template in templates
        for row, question, digest in zip(split[role].rows, questions, digests)
    ]
    return split.with_rows(**{f"{role}_trigger": rows})


def _check_templates(templates: tuple[str, ...]) -> None:
    """Raise ConfigError where there is no template, or one without a single ``{}``."""
    if not templates:
        raise ConfigError("no template is given: give at least one, such as 'Please tell me {}'")
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(f"a template has one {{}} where the text goes: {template!r} does not")
