"""Attacks: an audit of a changed copy. One file an attack.

An attack tries to recover the forgotten data. At each point of its budget it gives what is observed in place
of the artefact: a copy with changed weights, or the same weights with other prompts. The same attack runs on
the model, on the oracles and on the original, and changes none of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from unremember.data.cleaning import ALIASES
from unremember.data.split import Row, Split, column_value
from unremember.tasks.artefact import Artefact


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is attacked.

    Args:
        artefact: The artefact.
        split: The data.
        original: The artefact before forgetting; the artefact itself where none was given.
    """

    artefact: Artefact
    split: Split
    original: Artefact


@dataclasses.dataclass(frozen=True)
class AttackPoint:
    """One point of an attack's budget.

    Args:
        amount: How much of the budget is spent, in the attack's own ``unit``.
        artefact: What is observed.
        split: The data on which it is observed.
    """

    amount: float
    artefact: Artefact
    split: Split


Evaluate = Callable[[AttackPoint], None]
Amount = TypeVar("Amount", int, float)


class Attack(Protocol):
    """An attack: a frozen dataclass, registered by name. ``unit`` says what an amount counts."""

    @property
    def unit(self) -> str: ...

    def run(self, subject: Subject, evaluate: Evaluate) -> None:
        """Call ``evaluate`` at each point, in the order of the budget.

        The point is observed within the call, so its artefact may change afterwards.
        """
        ...


@torch.no_grad()
def with_changed_weights(model: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of the model whose weight matrices went through ``change``, tied weights once."""
    changed, done = copy.deepcopy(model), set()
    for module in changed.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.dim() == 2 and id(weight) not in done:
            done.add(id(weight))
            weight.copy_(change(weight))
    return changed


def evaluate_amounts(
    subject: Subject, amounts: Sequence[Amount], change: Callable[[Any, Amount], Any], evaluate: Evaluate
) -> None:
    """Evaluate ``change(model, amount)``, a changed copy of the model, for each amount."""
    artefact = subject.artefact
    for amount in amounts:
        changed = Artefact(change(artefact.model, amount), artefact.task, artefact.guard)
        evaluate(AttackPoint(amount, changed, subject.split))


def with_prompt(
    row: Row, task: Any, before: str = "", begun: str = "", answer: str | None = None
) -> Mapping[str, Any]:
    """Return a row with its prompt written out, and only the texts that are right behind it.

    Args:
        row: The row.
        task: The language task that renders the prompt.
        before: What stands before the prompt.
        begun: What the answer begins with.
        answer: What the model has to answer; None for the row's answer and its aliases.
    """
    columns = ("question", "entity") if answer is not None else ("question", "entity", ALIASES)
    retained = {name: row[name] for name in columns if name in row}
    prompt = before + task.prompt(row) + begun
    return {**retained, "prompt": prompt, "answer": column_value(row, "answer") if answer is None else answer}
