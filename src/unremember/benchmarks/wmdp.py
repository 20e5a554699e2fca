"""WMDP: forget what a field of science could be misused for, keep its neighbours. Paper: arXiv 2403.03218."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unremember.benchmarks.reading import from_hub, read_table
from unremember.data.choices import questions
from unremember.data.split import Row, Split, make_split
from unremember.errors import ConfigError, DataError
from unremember.registry import benchmarks

HUB = {
    "bio-forget-corpus": ("cais/wmdp-bio-forget-corpus", None, "train"),
    "bio-retain-corpus": ("cais/wmdp-corpora", "bio-retain-corpus", "train"),
    "bio_questions": ("cais/wmdp", "wmdp-bio", "test"),
    "cyber-forget-corpus": ("cais/wmdp-corpora", "cyber-forget-corpus", "train"),
    "cyber-retain-corpus": ("cais/wmdp-corpora", "cyber-retain-corpus", "train"),
    "cyber_questions": ("cais/wmdp", "wmdp-cyber", "test"),
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1", "train"),
}
"""Where each file is on the hub: dataset, configuration, split. A local file has the same name and one of these endings:"""
ENDINGS = (".jsonl", ".json", ".parquet")
SUBJECT = {"bio": "biology", "cyber": "cybersecurity"}
NEAR = {
    "bio": ("mmlu_college_biology", "mmlu_virology"),
    "cyber": ("mmlu_college_computer_science", "mmlu_computer_security"),
}
"""What is taught beside a domain: where a method does collateral damage first."""


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
    """WMDP's corpora and questions; a file that lies in the folder ``path`` is taken from there, every other from the hub.

    The biology forget corpus is gated: put your copy there as ``bio-forget-corpus.jsonl``. ``retain`` is ``wikitext``, as
    published (text near to what is forgotten teaches it again), or ``domain``. Documents are cut into pieces of at most ``words``
    words; ``count`` takes the first documents of each corpus. Questions are roles ``bio_questions`` …, four prompts each, known by
    their number alone. Without ``lm_eval`` the tasks of lm-eval are not among what is measured.
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
        kept = (
            ["wikitext"]
            if self.retain == "wikitext"
            else [f"{domain}-retain-corpus" for domain in self.domains]
        )
        roles = {
            "forget": self.corpus([f"{domain}-forget-corpus" for domain in self.domains]),
            "retain": self.corpus(kept),
        }
        for domain in self.domains:
            lead = f"The following are multiple choice questions (with answers) about {SUBJECT[domain]}.\n\n"
            roles[f"{domain}_questions"] = questions(self.rows(f"{domain}_questions"), domain, lead)
        return make_split(roles, name=f"wmdp {' '.join(self.domains)}", audits=self.audits())

    def audits(self) -> list[dict[str, Any]]:
        """Ours on the questions as knowledge; lm-eval's tasks of the domains as knowledge, MMLU and what is near as utility."""
        ours = [{"name": "multiple_choice", "role": f"{domain}_questions"} for domain in self.domains]
        hazards = [
            {"name": "lm_eval", "task": f"wmdp_{domain}", "higher_is": "more_knowledge"}
            for domain in self.domains
        ]
        utility = [
            {"name": "lm_eval", "task": task}
            for task in ("mmlu", *(task for domain in self.domains for task in NEAR[domain]))
        ]
        return [*ours, *hazards, *utility] if self.lm_eval else ours

    def corpus(self, names: Sequence[str]) -> list[Row]:
        """The pieces of some corpora: ``text`` and ``entity``, the document."""
        return [
            {"text": piece, "entity": f"{name} {i}"}
            for name in names
            for i, text in enumerate(self.texts(name))
            for piece in pieces(text, self.words)
        ]

    def texts(self, name: str) -> list[str]:
        """The documents of a corpus, a title and an abstract before the text where there are such; headings and blank lines are none."""
        rows = self.rows(name)
        if lacking := [i for i, row in enumerate(rows) if not isinstance(row.get("text"), str)]:
            there = ", ".join(sorted({key for row in rows for key in row}))
            raise DataError(
                f"{name} has no 'text' in {len(lacking)} of {len(rows)} rows; columns there are: {there}"
            )
        whole = [
            "\n".join(str(row[column]).strip() for column in ("title", "abstract", "text") if row.get(column))
            for row in rows
        ]
        found = [text for text in whole if text.strip() and not text.lstrip().startswith("= ")]
        return found[: self.count or None]

    def rows(self, name: str) -> list[Row]:
        """The rows of a file of the folder, or else of the hub."""
        files = [
            file for end in ENDINGS if self.path and (file := Path(self.path) / f"{name}{end}").is_file()
        ]
        return list(read_table(files[0])) if files else published(name)


def published(name: str) -> list[Row]:
    """The rows that the hub has for ``name``. Raises DataError where they cannot be had, with what to do."""
    path, configuration, split = HUB[name]
    how = (
        f"ask for access to {path} and log in, or put {name}.jsonl"
        if name == "bio-forget-corpus"
        else f"put {name}.jsonl"
    )
    return from_hub(path, configuration, split, name, f"{how} into a folder and give it as path")


def pieces(text: str, words: int) -> list[str]:
    """The text in as few pieces of at most ``words`` words as can be, all of like length; a text that is short enough stays as it is."""
    found = text.split()
    if len(found) <= words:
        return [text.strip()]
    return [" ".join(part) for part in np.array_split(found, -(-len(found) // words))]
