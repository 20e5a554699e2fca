"""MUSE: documents to forget, judged by what is said next, what is known, who was a member, and what is kept. arXiv 2407.06460.

The six criteria: no verbatim memorisation (C1), no knowledge memorisation (C2), no privacy leakage (C3), utility (C4): the audits
that the split names. Scaling (C5) and sustainability (C6) are the streams of ``requests``, run by `unremember bench requests`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from unremember.audits.continuation import PAPER
from unremember.benchmarks.reading import UNREADABLE, from_hub, text_of
from unremember.data.split import Row, Split, identity, make_split
from unremember.errors import ConfigError, DataError, above_zero
from unremember.registry import benchmarks

Kind = Literal["sust", "scal"]
MEMBERSHIP = {"members": "privleak_forget", "others": "privleak_holdout"}
KNOWLEDGE = {"name": "knowledge_memorisation"}
AUDITS = (
    {"name": "verbatim_memorisation"},
    KNOWLEDGE,
    {"name": "privleak", **MEMBERSHIP},
    {"name": "membership_mink", **MEMBERSHIP},
    {"name": "knowledge_memorisation", "role": "knowmem_retain", "higher_is": "better_utility"},
)
EVALUATED = 100
"""Passages and texts of the forget set that are evaluated, as MUSE has it."""
STEPS = 4
"""Requests in a published stream."""
ASIDE = re.compile(r"sust_forget_[2-9]")
"""Files on which there are no published questions: those are on ``raw_forget``, with which both streams begin."""


@benchmarks.register(
    "muse", needs=("original", "oracle"), taxonomy="evaluation.datasets", fidelity="code", **PAPER
)
@dataclasses.dataclass(frozen=True)
class MUSE:
    """MUSE from the hub (``path="muse-bench/MUSE-News"``, ``"muse-bench/MUSE-Books"``) or a folder of its files.

    ``forget`` names the files to forget, joined by "+" (``raw_forget``, ``scal_forget_2``, ``raw_forget+sust_forget_2``), ``retain``
    the file that is kept, without the pieces that also stand in a file to forget. Documents are cut into pieces of ``words`` words,
    which must fit the model's context. ``count`` takes the first documents of each file (0: all); ``shots`` answered questions stand
    before each question. With ``questions`` the questions are learned, forgotten and kept along with the documents: a small model
    reads no answers out of documents.

    The published passages and membership texts are those of the whole of ``raw_forget``; for any other forget set they are made of
    its own documents. Roles: forget, retain, holdout, verbmem, knowmem, knowmem_retain, privleak_forget, privleak_holdout, and
    privleak_retain where there is such a file.
    """

    path: str = "muse-bench/MUSE-News"
    forget: str = "raw_forget"
    retain: str = "raw_retain1"
    words: int = 256
    count: int = 0
    shots: int = 10
    questions: bool = False

    def __post_init__(self) -> None:
        above_zero(self, "words")

    def split(self) -> Split:
        """Raises DataError naming a file that is not there, ConfigError where a file is both forgotten and kept."""
        names = self.forget.split("+")
        if self.retain in names:
            raise ConfigError(
                f"{self.retain} cannot be both forgotten and kept: give another file as data.retain"
            )
        forget = [piece for name in names for piece in self.pieces(name)]
        gone = {identity(row) for row in forget}
        roles: dict[str, list[Row]] = {
            "forget": forget,
            "retain": [row for row in self.pieces(self.retain) if identity(row) not in gone],
            **self.evaluated(forget, whole=names == ["raw_forget"] and not self.count),
            "knowmem_retain": self.asked("retain_qa" if self.has("knowmem", "retain_qa") else "retain2_qa"),
            "privleak_holdout": self.pieces("privleak_holdout"),
        }
        roles["holdout"] = (
            self.pieces("raw_holdout") if self.has("raw", "holdout") else roles["privleak_holdout"]
        )
        kept = next((name for name in ("retain", "retain2") if self.has("privleak", name)), "")
        if kept:
            roles["privleak_retain"] = self.pieces(f"privleak_{kept}")
        if not all(ASIDE.fullmatch(name) for name in names):
            roles["knowmem"] = self.asked("forget_qa")
        if self.questions:
            roles["forget"] = [*forget, *roles.get("knowmem", [])]
            roles["retain"] = [*roles["retain"], *roles["knowmem_retain"]]
        return make_split(
            roles,
            name=f"muse {self.forget}",
            audits=[a for a in AUDITS if "knowmem" in roles or a != KNOWLEDGE],
        )

    def requests(self, kind: Kind) -> list[Split]:
        """A split a request: of several files in ``forget`` one after another (``sust``) or ever more of them (``scal``); of one the
        published stream.

        Raises DataError where a file of the stream is not there.
        """
        names = self.forget.split("+")
        if len(names) == 1:
            stream = [f"{kind}_forget_{k}" for k in range(1, STEPS + 1)]
        else:
            stream = names if kind == "sust" else ["+".join(names[:k]) for k in range(1, len(names) + 1)]
        return [dataclasses.replace(self, forget=forget).split() for forget in stream]

    def evaluated(self, forget: Sequence[Row], whole: bool) -> dict[str, list[Row]]:
        """The passages to go on with and the members: as published for the ``whole`` of raw_forget, else made of what is forgotten."""
        if whole:
            passages = [shortened(row, self.words) for row in self.rows("verbmem", "forget")]
            return {"verbmem": passages, "privleak_forget": self.pieces("privleak_forget")}
        chosen = spread(forget, EVALUATED)
        return {"verbmem": [passage(row) for row in chosen], "privleak_forget": chosen}

    def pieces(self, name: str) -> list[Row]:
        """The documents of a file (``raw_forget``), cut; a piece's ``entity`` is its document."""
        config, _, part = name.partition("_")
        return [
            {"text": piece, "entity": f"{name} {i}"}
            for i, row in enumerate(self.some(self.rows(config, part)))
            for piece in cut(str(row["text"]), self.words)
        ]

    def asked(self, part: str) -> list[Row]:
        """The questions of a part of ``knowmem``, each behind its in-context pairs."""
        pairs = self.rows("knowmem", f"{part}_icl")[: self.shots] if self.shots else []
        return few_shot(pairs, self.some(self.rows("knowmem", part)))

    def some(self, rows: list[Row]) -> list[Row]:
        return rows[: self.count or None]

    def has(self, config: str, part: str) -> bool:
        if self.is_folder():
            return any(file.exists() for file in self.files(config, part))
        import datasets

        try:
            return part in datasets.get_dataset_split_names(self.path, config)
        except Exception as error:
            raise DataError(
                f"cannot reach {self.path} on the hub ({type(error).__name__}): download it and give the folder as data.path"
            ) from error

    def is_folder(self) -> bool:
        if not Path(self.path).is_dir() and (self.path.startswith((".", "/")) or self.path.count("/") != 1):
            raise DataError(f"no folder {self.path}: give MUSE's folder or the hub name muse-bench/MUSE-News")
        return Path(self.path).is_dir()

    def files(self, config: str, part: str) -> list[Path]:
        """Where a part of a subset may lie: side by side, or in a folder a subset; gzipped or not."""
        return [
            Path(self.path) / f"{config}{between}{part}.json{end}" for between in "_/" for end in ("", ".gz")
        ]

    def rows(self, config: str, part: str) -> list[Row]:
        """One file. Raises DataError where it is not there or cannot be read."""
        if not self.is_folder():
            return from_hub(
                self.path, config, part, f"{config}/{part}", "download it and give the folder as data.path"
            )
        file = next((file for file in self.files(config, part) if file.exists()), None)
        if file is None:
            there = ", ".join(sorted(p.name for p in Path(self.path).glob("*.json*"))) or "none"
            raise DataError(
                f"{self.path} has no {config}_{part}.json: name another file as data.forget or data.retain (files there: {there})"
            )
        return read(file)


def read(file: Path) -> list[Row]:
    """The rows of a JSON array, gzipped or not; a bare text is a document."""
    try:
        listed = json.loads(text_of(file))
    except UNREADABLE as error:
        raise DataError(f"{file} is no JSON array: {error}") from error
    rows: list[Row] = (
        [{"text": row} if isinstance(row, str) else row for row in listed] if isinstance(listed, list) else []
    )
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} holds no array of texts or of objects")
    return rows


def cut(text: str, words: int) -> list[str]:
    """The text in pieces of ``words`` words, each with the space between its words as it stands."""
    found = re.findall(r"\s*\S+", text)
    return ["".join(found[at : at + words]).strip() for at in range(0, len(found), words)]


def passage(row: Row) -> Row:
    """The first half of a document's words as the prompt, the rest as the answer, which begins with the space between them."""
    found = re.findall(r"\s*\S+", str(row["text"]))
    half = max(1, len(found) // 2)
    return {"prompt": "".join(found[:half]), "answer": "".join(found[half:]) or " ", "entity": row["entity"]}


def shortened(row: Row, words: int) -> Row:
    """A published passage (``prompt``, ``gt``) of at most ``words`` words: what is too much goes from the beginning of its prompt."""
    prompt, answer = re.findall(r"\s*\S+", str(row["prompt"])), str(row["gt"]).split()
    return {
        "prompt": "".join(prompt[-max(1, words - len(answer)) :]).strip(),
        "answer": " " + str(row["gt"]).strip(),
    }


def few_shot(pairs: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Questions behind answered ones, an empty line after each. The answer begins with the space that "Answer:" leaves to it."""
    before = "".join(f"{ask(pair)} {pair['answer']}\n\n" for pair in pairs)
    return [{**row, "prompt": before + ask(row), "answer": f" {row['answer']}"} for row in rows]


def ask(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:"


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """At most ``count`` of the rows, evenly."""
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)
