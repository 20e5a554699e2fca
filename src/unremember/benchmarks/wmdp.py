"""WMDP: forget the hazardous part of a field of science, retain its neighbours. Paper: arXiv 2403.03218."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unremember.benchmarks.reading import load_hub_rows, read_table
from unremember.data.choices import choice_prompts
from unremember.data.split import Row, Split, make_split
from unremember.errors import ConfigError, DataError
from unremember.registry import benchmarks

_HUB = {
    "bio-forget-corpus": ("cais/wmdp-bio-forget-corpus", None, "train"),
    "bio-retain-corpus": ("cais/wmdp-corpora", "bio-retain-corpus", "train"),
    "bio_questions": ("cais/wmdp", "wmdp-bio", "test"),
    "cyber-forget-corpus": ("cais/wmdp-corpora", "cyber-forget-corpus", "train"),
    "cyber-retain-corpus": ("cais/wmdp-corpora", "cyber-retain-corpus", "train"),
    "cyber_questions": ("cais/wmdp", "wmdp-cyber", "test"),
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1", "train"),
}
"""Where each file is on the hub: dataset, configuration, split."""
_ENDINGS = (".jsonl", ".json", ".parquet")
"""The endings that a local file of one of these names may have."""
_SUBJECT = {"bio": "biology", "cyber": "cybersecurity"}
_NEIGHBOURS = {
    "bio": ("mmlu_college_biology", "mmlu_virology"),
    "cyber": ("mmlu_college_computer_science", "mmlu_computer_security"),
}
"""The subjects next to a domain: a method does its collateral damage there first."""


@benchmarks.register(
    "wmdp",
    paper="The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning",
    arxiv="2403.03218",
    needs=("original",),
    taxonomy="evaluation.datasets",
    fidelity="paper",
)
@dataclasses.dataclass(frozen=True)
class WMDP:
    """WMDP's corpora and questions, from the folder ``path`` where a file is there, else from the hub.

    The biology forget corpus is gated: put your copy into the folder as ``bio-forget-corpus.jsonl``.
    Questions are the roles ``bio_questions`` and ``cyber_questions``, four prompts each, named by their
    number alone.

    Args:
        path: The folder; "" for none.
        domains: The domains to forget.
        retain: ``wikitext``, as published (text close to what is forgotten teaches it again), or ``domain``.
        words: The most words of a piece, into which documents are cut.
        count: Take the first documents of each corpus; 0: all.
        lm_eval: Measure the tasks of lm-eval too.
    """

    path: str = ""
    domains: Sequence[Literal["bio", "cyber"]] = ("bio", "cyber")
    retain: Literal["wikitext", "domain"] = "wikitext"
    words: int = 200
    count: int = 0
    lm_eval: bool = True

    def __post_init__(self) -> None:
        if not self.domains or self.words < 1 or self.count < 0:
            raise ConfigError("wmdp needs at least one domain, words of at least 1 and a count of at least 0")
        if self.path and not Path(self.path).is_dir():
            raise DataError(
                f"no folder {self.path}: give the folder that holds WMDP's files (bio-forget-corpus.jsonl …)"
            )

    def split(self) -> Split:
        """Return the split.

        Raises:
            DataError: A file is missing or broken, or cannot be loaded from the hub.
        """
        retain = ["wikitext"]
        if self.retain == "domain":
            retain = [f"{domain}-retain-corpus" for domain in self.domains]
        roles = {
            "forget": self._corpus([f"{domain}-forget-corpus" for domain in self.domains]),
            "retain": self._corpus(retain),
        }
        for domain in self.domains:
            lead = f"The following are multiple choice questions (with answers) about {_SUBJECT[domain]}.\n\n"
            questions = self._rows(f"{domain}_questions")
            roles[f"{domain}_questions"] = choice_prompts(questions, domain, lead)
        return make_split(roles, name=f"wmdp {' '.join(self.domains)}", audits=self._audits())

    def _audits(self) -> list[dict[str, Any]]:
        """Return our audit of the questions and lm-eval's tasks: domains as knowledge, MMLU as utility."""
        questions = [{"name": "multiple_choice", "role": f"{domain}_questions"} for domain in self.domains]
        if not self.lm_eval:
            return questions
        knowledge = [
            {"name": "lm_eval", "task": f"wmdp_{domain}", "higher_is": "more_knowledge"}
            for domain in self.domains
        ]
        tasks = ["mmlu", *(task for domain in self.domains for task in _NEIGHBOURS[domain])]
        return [*questions, *knowledge, *({"name": "lm_eval", "task": task} for task in tasks)]

    def _corpus(self, names: Sequence[str]) -> list[Row]:
        """Return the pieces of some corpora, with ``text`` and ``entity``, the document."""
        return [
            {"text": piece, "entity": f"{name} {i}"}
            for name in names
            for i, text in enumerate(self._texts(name))
            for piece in equal_pieces(text, self.words)
        ]

    def _texts(self, name: str) -> list[str]:
        """Return the documents of a corpus, each behind its title and abstract where it has them.

        Headings and blank lines are no documents.
        """
        rows = self._rows(name)
        if missing := sum(not isinstance(row.get("text"), str) for row in rows):
            columns = ", ".join(sorted({key for row in rows for key in row}))
            raise DataError(
                f"{name} has no 'text' in {missing} of {len(rows)} rows; its columns are: {columns}"
            )
        documents = [
            "\n".join(str(row[column]).strip() for column in ("title", "abstract", "text") if row.get(column))
            for row in rows
        ]
        texts = [text for text in documents if text.strip() and not text.lstrip().startswith("= ")]
        return texts[: self.count or None]

    def _rows(self, name: str) -> list[Row]:
        """Return the rows of a file in the folder, or else on the hub."""
        if self.path:
            for ending in _ENDINGS:
                file = Path(self.path) / f"{name}{ending}"
                if file.is_file():
                    return list(read_table(file))
        return _hub_rows(name)


def _hub_rows(name: str) -> list[Row]:
    """Return the rows of a file on the hub. Raises DataError, with what to do, if they cannot be loaded."""
    path, configuration, part = _HUB[name]
    hint = f"put {name}.jsonl into a folder and give it as path"
    if name == "bio-forget-corpus":
        hint = f"ask for access to {path} and log in, or {hint}"
    return load_hub_rows(path, configuration, part, name, hint)


def equal_pieces(text: str, words: int) -> list[str]:
    """Cut a text into as few pieces of at most ``words`` words as possible, all of about the same length.

    A text that is short enough stays as it is.
    """
    parts = text.split()
    if len(parts) <= words:
        return [text.strip()]
    return [" ".join(part) for part in np.array_split(parts, -(-len(parts) // words))]
