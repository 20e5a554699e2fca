"""MUSE: documents to forget, judged by what the model continues, knows, reveals of membership and retains.

Paper: arXiv 2407.06460. Of its six criteria, four are the audits that the split names: no verbatim
    memorisation (C1), no
knowledge memorisation (C2), no privacy leakage (C3), utility (C4). Scaling (C5) and sustainability (C6) are
the streams of ``requests``, run by `unremember experiment requests`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from unremember.audits.continuation import MUSE_PAPER
from unremember.benchmarks.reading import READ_ERRORS, load_hub_rows, read_text
from unremember.data.split import Row, Split, content_key, make_split
from unremember.errors import ConfigError, DataError, require_positive
from unremember.registry import benchmarks

StreamKind = Literal["sust", "scal"]
MEMBERSHIP_ROLES = {"members": "privleak_forget", "nonmembers": "privleak_holdout"}
_KNOWLEDGE_AUDIT = {"name": "knowledge_memorisation"}
MUSE_AUDITS = (
    {"name": "verbatim_memorisation"},
    _KNOWLEDGE_AUDIT,
    {"name": "privleak", **MEMBERSHIP_ROLES},
    {"name": "membership_mink", **MEMBERSHIP_ROLES},
    {"name": "knowledge_memorisation", "role": "knowmem_retain", "higher_is": "better_utility"},
)
STREAM_LENGTH = 4
"""Requests in a published stream."""
_EVALUATED = 100
"""Passages and texts of the forget set that are evaluated, as in the paper."""
_WITHOUT_QUESTIONS = re.compile(r"sust_forget_[2-9]")
"""Files without published questions: those are on ``raw_forget``, with which both streams begin."""
_WORD = re.compile(r"\s*\S+")
"""A word with the space before it."""


@benchmarks.register(
    "muse", needs=("original", "oracle"), taxonomy="evaluation.datasets", fidelity="code", **MUSE_PAPER
)
@dataclasses.dataclass(frozen=True)
class MUSE:
    """MUSE from the hub (``muse-bench/MUSE-News``, ``muse-bench/MUSE-Books``) or from a folder of its files.

    The roles are forget, retain, holdout, verbmem, knowmem, knowmem_retain, privleak_forget,
    privleak_holdout, and privleak_retain if there is such a file. The published passages and membership texts
    are those of the whole of ``raw_forget``; for any other forget set they are made from its own documents.

    Args:
        path: The hub name or the folder.
        forget: The files to forget, joined by "+": ``raw_forget``, ``scal_forget_2``,
            ``raw_forget+sust_forget_2``.
        retain: The file to retain. Pieces that also are in a file to forget are left out.
        words: The most words of a piece, into which documents are cut. A piece must fit the model's context.
        count: Take the first documents of each file; 0: all.
        shots: Answered questions before each question.
        questions: Let the questions be learned, forgotten and retained along with the documents. A small
            model cannot answer questions from documents alone.
    """

    path: str = "muse-bench/MUSE-News"
    forget: str = "raw_forget"
    retain: str = "raw_retain1"
    words: int = 256
    count: int = 0
    shots: int = 10
    questions: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "words")

    def split(self) -> Split:
        """Return the split.

        Raises:
            DataError: A file is missing or broken.
            ConfigError: A file is both forgotten and retained.
        """
        names = self.forget.split("+")
        if self.retain in names:
            raise ConfigError(
                f"{self.retain} cannot be both forgotten and kept: give another file as data.retain"
            )
        roles = self._document_roles(names)
        if not all(_WITHOUT_QUESTIONS.fullmatch(name) for name in names):
            roles["knowmem"] = self._question_rows("forget_qa")
        if self.questions:
            roles["forget"] = [*roles["forget"], *roles.get("knowmem", [])]
            roles["retain"] = [*roles["retain"], *roles["knowmem_retain"]]
        audits = [audit for audit in MUSE_AUDITS if "knowmem" in roles or audit != _KNOWLEDGE_AUDIT]
        return make_split(roles, name=f"muse {self.forget}", audits=audits)

    def _document_roles(self, names: Sequence[str]) -> dict[str, list[Row]]:
        """Return all roles but the questions on the forget set, for the files ``names`` to forget."""
        forget = [piece for name in names for piece in self._pieces(name)]
        forget_keys = {content_key(row) for row in forget}
        is_published = names == ["raw_forget"] and not self.count
        retain_questions = "retain_qa" if self._has("knowmem", "retain_qa") else "retain2_qa"
        roles: dict[str, list[Row]] = {
            "forget": forget,
            "retain": [row for row in self._pieces(self.retain) if content_key(row) not in forget_keys],
            **self._evaluated_roles(forget, is_published),
            "knowmem_retain": self._question_rows(retain_questions),
            "privleak_holdout": self._pieces("privleak_holdout"),
        }
        has_holdout = self._has("raw", "holdout")
        roles["holdout"] = self._pieces("raw_holdout") if has_holdout else roles["privleak_holdout"]
        for part in ("retain", "retain2"):
            if self._has("privleak", part):
                roles["privleak_retain"] = self._pieces(f"privleak_{part}")
                break
        return roles

    def requests(self, kind: StreamKind) -> list[Split]:
        """Return a split for each request of a stream.

        If ``forget`` names several files, they are forgotten one after another (``sust``) or ever more of
        them (``scal``). If it names one, the stream is the published one.

        Raises:
            DataError: A file of the stream is missing.
        """
        names = self.forget.split("+")
        if len(names) == 1:
            stream = [f"{kind}_forget_{k}" for k in range(1, STREAM_LENGTH + 1)]
        else:
            stream = names if kind == "sust" else ["+".join(names[:k]) for k in range(1, len(names) + 1)]
        return [dataclasses.replace(self, forget=forget).split() for forget in stream]

    def _evaluated_roles(self, forget: Sequence[Row], is_published: bool) -> dict[str, list[Row]]:
        """Return the passages to continue and the members, published or made from the forgotten pieces."""
        if is_published:
            passages = [shorten_passage(row, self.words) for row in self._published_rows("verbmem", "forget")]
            return {"verbmem": passages, "privleak_forget": self._pieces("privleak_forget")}
        chosen = evenly_spaced(forget, _EVALUATED)
        passages = [continuation_row(row) for row in chosen if " " in " ".join(row["text"].split())]
        return {"verbmem": passages, "privleak_forget": chosen}

    def _pieces(self, name: str) -> list[Row]:
        """Return the documents of a file (``raw_forget``), cut; a piece's ``entity`` is its document."""
        config, _, part = name.partition("_")
        documents = self._published_rows(config, part)[: self.count or None]
        return [
            {"text": piece, "entity": f"{name} {i}"}
            for i, document in enumerate(documents)
            for piece in cut_into_pieces(str(document["text"]), self.words)
        ]

    def _question_rows(self, part: str) -> list[Row]:
        """Return the questions of a part of ``knowmem``, each behind its answered ones."""
        shots = self._published_rows("knowmem", f"{part}_icl")[: self.shots] if self.shots else []
        return few_shot_rows(shots, self._published_rows("knowmem", part)[: self.count or None])

    def _has(self, config: str, part: str) -> bool:
        if self._is_folder():
            return any(file.exists() for file in self._possible_files(config, part))
        import datasets

        try:
            return part in datasets.get_dataset_split_names(self.path, config)
        except Exception as error:
            raise DataError(
                f"cannot reach {self.path} on the hub ({type(error).__name__}): "
                "download it and give the folder as data.path"
            ) from error

    def _is_folder(self) -> bool:
        if not Path(self.path).is_dir() and (self.path.startswith((".", "/")) or self.path.count("/") != 1):
            raise DataError(f"no folder {self.path}: give MUSE's folder or the hub name muse-bench/MUSE-News")
        return Path(self.path).is_dir()

    def _possible_files(self, config: str, part: str) -> list[Path]:
        """Return where a part of a subset may be: beside the others or in a folder, gzipped or not."""
        return [
            Path(self.path) / f"{config}{separator}{part}.json{ending}"
            for separator in "_/"
            for ending in ("", ".gz")
        ]

    def _published_rows(self, config: str, part: str) -> list[Row]:
        """Return the rows of one file. Raises DataError if it is missing or cannot be read."""
        if not self._is_folder():
            return load_hub_rows(
                self.path, config, part, f"{config}/{part}", "download it and give the folder as data.path"
            )
        for file in self._possible_files(config, part):
            if file.exists():
                return _read_json_array(file)
        files = ", ".join(sorted(p.name for p in Path(self.path).glob("*.json*"))) or "none"
        raise DataError(
            f"{self.path} has no {config}_{part}.json: name another file as data.forget or data.retain "
            f"(its files: {files})"
        )


def _read_json_array(file: Path) -> list[Row]:
    """Return the rows of a JSON array, gzipped or not; a bare text is a document."""
    try:
        array = json.loads(read_text(file))
    except READ_ERRORS as error:
        raise DataError(f"{file} is not a JSON array: {error}") from error
    rows: list[Row] = []
    if isinstance(array, list):
        rows = [{"text": row} if isinstance(row, str) else row for row in array]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} does not hold an array of texts or of objects")
    return rows


def cut_into_pieces(text: str, words: int) -> list[str]:
    """Cut a text into pieces of ``words`` words; the space between the words of a piece stays as it is."""
    parts = _WORD.findall(text)
    return ["".join(parts[i : i + words]).strip() for i in range(0, len(parts), words)]


def continuation_row(document: Row) -> Row:
    """Return a document of two words or more as a prompt, their first half, and an answer, the rest."""
    parts = _WORD.findall(str(document["text"]))
    half = max(1, len(parts) // 2)
    return {
        "prompt": "".join(parts[:half]),
        "answer": "".join(parts[half:]),
        "entity": document["entity"],
    }


def shorten_passage(row: Row, words: int) -> Row:
    """Return a published passage (``prompt``, ``gt``), cut at the front to ``words`` words in all."""
    prompt, answer = _WORD.findall(str(row["prompt"])), str(row["gt"]).split()
    return {
        "prompt": "".join(prompt[-max(1, words - len(answer)) :]).strip(),
        "answer": " " + str(row["gt"]).strip(),
    }


def few_shot_rows(shots: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return the questions of ``rows``, each behind the answered questions of ``shots``.

    An empty line follows each shot. An answer begins with the space that "Answer:" leaves to it.
    """
    lead = "".join(f"{_question_text(shot)} {shot['answer']}\n\n" for shot in shots)
    return [{**row, "prompt": lead + _question_text(row), "answer": f" {row['answer']}"} for row in rows]


def _question_text(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:"


def evenly_spaced(rows: Sequence[Any], count: int) -> list[Any]:
    """Return at most ``count`` of the rows, evenly spaced."""
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)
