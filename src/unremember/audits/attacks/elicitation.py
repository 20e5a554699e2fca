"""Elicitation: the same weights, asked in another way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from unremember.audits.attacks import AttackPoint, Evaluate, Subject, with_prompt
from unremember.data.split import value_of
from unremember.registry import attacks

NEEDS = ("forget", "oracle", "original")


@attacks.register(
    "prefix",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=NEEDS,
    taxonomy="evaluation.recovery",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class Prefix:
    """Give the first words of the answer and look at the rest: the share of them is the amount.

    At least one word is given and one is left; answers of a single word are left out.
    """

    shares: Sequence[float] = (0.25, 0.5, 0.75)
    unit = "share of the answer"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        artefact, split = subject.artefact, subject.split
        task: Any = artefact.task
        for share in self.shares:
            made = []
            for row in split["forget"].rows:
                words = str(value_of(row, "answer")).split(" ")
                if len(words) > 1:
                    cut = min(max(1, round(share * len(words))), len(words) - 1)
                    made.append(
                        with_prompt(
                            row, task, given=" ".join(words[:cut]), answer=" " + " ".join(words[cut:])
                        )
                    )
            evaluate(AttackPoint(share, artefact, split.with_rows(forget=made)))


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
    """Answer some retain questions first, in the prompt: their number is the amount. Each row has its own, by its key."""

    shots: Sequence[int] = (1, 2, 4)
    unit = "shots"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        artefact, split = subject.artefact, subject.split
        task: Any = artefact.task
        kept, keys = split["retain"].rows, split["forget"].keys
        for shots in self.shots:
            made = []
            for row, key in zip(split["forget"].rows, keys):
                examples = [kept[(int(key) + i) % len(kept)] for i in range(shots)]
                before = "".join(f"{task.prompt(one)}{value_of(one, 'answer')}\n\n" for one in examples)
                made.append(with_prompt(row, task, before=before))
            evaluate(AttackPoint(shots, artefact, split.with_rows(forget=made)))


@attacks.register(
    "paraphrase",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=(*NEEDS, "paraphrased_question"),
    taxonomy="evaluation.recovery",
    fidelity="own",
)
@dataclasses.dataclass(frozen=True)
class Paraphrase:
    """Ask the question in other words: the rows' ``paraphrased_question``."""

    unit = "wordings"

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        role = subject.split["forget"]
        made = [
            {**row, "question": text} for row, text in zip(role.rows, role.column("paraphrased_question"))
        ]
        evaluate(AttackPoint(1, subject.artefact, subject.split.with_rows(forget=made)))
