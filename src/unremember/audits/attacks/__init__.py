"""Attacks: an audit made on a changed copy. One file an attack.

An attack gives, point by point of its budget, what is observed in place of the artefact: a copy whose weights were changed,
or the same weights asked in another way. The same attack runs on the model, on the oracles and on the original, and changes
none of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from unremember.data.split import Row, Split, value_of
from unremember.tasks.artefact import Artefact


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is attacked: an artefact on a split; ``original`` is the one before forgetting (itself, where none was given)."""

    artefact: Artefact
    split: Split
    original: Artefact


@dataclasses.dataclass(frozen=True)
class AttackPoint:
    """One point: how much of the budget is spent (``amount``, in the attack's own ``unit``), and what is observed there."""

    amount: float
    artefact: Artefact
    split: Split


Evaluate = Callable[[AttackPoint], None]
Amount = TypeVar("Amount", int, float)


class Attack(Protocol):
    """``run`` calls ``evaluate`` at each point, in the order of the budget; ``unit`` says what an amount counts.

    An artefact may change after its point was evaluated: it is observed there and then.
    """

    @property
    def unit(self) -> str: ...
    def run(self, subject: Subject, evaluate: Evaluate) -> None: ...


@torch.no_grad()
def with_changed_weights(model: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of the model whose weight matrices went through ``change``; tied weights once."""
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
    row: Row, task: Any, before: str = "", given: str = "", answer: str | None = None
) -> Mapping[str, Any]:
    """Return a row with its prompt written out: ``before`` it, and ``given`` at the start of its answer.

    Its other texts are dropped: they belong to the whole answer.
    """
    prompt = before + task.prompt(row) + given
    kept = {name: row[name] for name in ("question", "entity") if name in row}
    return {**kept, "prompt": prompt, "answer": value_of(row, "answer") if answer is None else answer}
