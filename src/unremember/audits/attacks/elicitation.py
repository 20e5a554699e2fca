"""Elicitation: the same weights with other prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from unremember.audits.attacks import AttackPoint, Evaluate, Subject, with_prompt
from unremember.data.split import column_value
from unremember.errors import ConfigError, require_shares
from unremember.registry import attacks

_NEEDS = ("forget", "oracle", "original")


@attacks.register(
    "prefix",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=_NEEDS,
    taxonomy="evaluation.recovery",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class Prefix:
    """Give the first words of the answer and measure the others; the amount is the share of words given.

    At least one word is given and one remains; answers of a single word are left out.
    """

    shares: Sequence[float] = (0.25, 0.5, 0.75)
    unit = "share of the answer"

    def __post_init__(self) -> None:
        require_shares(self, "shares")

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        artefact, split = subject.artefact, subject.split
        task: Any = artefact.task
        for share in self.shares:
            rows = []
            for row in split["forget"].rows:
                words = str(column_value(row, "answer")).split(" ")
                if len(words) > 1:
                    count = min(max(1, round(share * len(words))), len(words) - 1)
                    begun, remainder = " ".join(words[:count]), " " + " ".join(words[count:])
                    rows.append(with_prompt(row, task, begun=begun, answer=remainder))
            evaluate(AttackPoint(share, artefact, split.with_rows(forget=rows)))


@attacks.register(
    "few_shot",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=("forget", "retain", "oracle", "original"),
    taxonomy="evaluation.recovery",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class FewShot:
    """Put answered retain questions, chosen by the row's key, before its own: their number is the amount."""

    shots: Sequence[int] = (1, 2, 4)
    unit = "shots"

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 0:
            raise ConfigError(f"shots must list one or more numbers, 0 or above, not {list(self.shots)}")

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        artefact, split = subject.artefact, subject.split
        task: Any = artefact.task
        pool, keys = split["retain"].rows, split["forget"].keys
        for shots in self.shots:
            rows = []
            for row, key in zip(split["forget"].rows, keys):
                examples = [pool[(int(key) + i) % len(pool)] for i in range(shots)]
                answered = [
                    f"{task.prompt(example)}{column_value(example, 'answer')}\n\n" for example in examples
                ]
                rows.append(with_prompt(row, task, before="".join(answered)))
            evaluate(AttackPoint(shots, artefact, split.with_rows(forget=rows)))


@attacks.register(
    "paraphrase",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=(*_NEEDS, "paraphrased_question"),
    taxonomy="evaluation.recovery",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class Paraphrase:
    """Ask the question in other words: the rows' ``paraphrased_question``."""

    unit = "wordings"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        role = subject.split["forget"]
        questions = role.column("paraphrased_question")
        rows = [{**row, "question": question} for row, question in zip(role.rows, questions)]
        evaluate(AttackPoint(1, subject.artefact, subject.split.with_rows(forget=rows)))
