"""Attacks: an audit made on a changed copy. One file an attack.

An attack shows, point by point of its budget, what is to be observed in place of the artefact: a copy whose weights were
changed, or the same weights asked in another way. It runs alike on the model, on the oracles and on the original, and never
touches any of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from unremember.data.split import Row, Split, value_of
from unremember.engine.language import Language


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is attacked: a model on a split; ``original`` is the model before forgetting (itself, where none was given)."""

    model: Any
    task: Language
    split: Split
    original: Any


@dataclasses.dataclass(frozen=True)
class Attacked:
    """One point: how much of the budget is spent (``amount``, in the attack's own ``unit``), and what is observed there."""

    amount: float
    model: Any
    task: Language
    split: Split


Look = Callable[[Attacked], None]
Amount = TypeVar("Amount", int, float)


class Attack(Protocol):
    """``run`` calls ``look`` at each point, in the order of the budget; ``unit`` says what an amount counts.

    What is looked at may change afterwards: it is observed there and then.
    """

    @property
    def unit(self) -> str: ...
    def run(self, subject: Subject, look: Look) -> None: ...


@torch.no_grad()
def changed(model: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of the model whose weight matrices went through ``change``; tied weights once."""
    made, done = copy.deepcopy(model), set()
    for module in made.modules():
        if isinstance(weight := getattr(module, "weight", None), torch.nn.Parameter) and weight.dim() == 2 and id(weight) not in done:
            done.add(id(weight))
            weight.copy_(change(weight))
    return made


def sweep(subject: Subject, amounts: Sequence[Amount], change: Callable[[Any, Amount], Any], look: Look) -> None:
    """Look at ``change(model, amount)``, a changed copy, for each amount."""
    for amount in amounts:
        look(Attacked(amount, change(subject.model, amount), subject.task, subject.split))


def prompted(row: Row, task: Language, before: str = "", given: str = "", answer: str | None = None) -> Mapping[str, Any]:
    """The row with its prompt written out: ``before`` it, and ``given`` at the start of its answer.

    Its other texts go: they belong to the whole answer.
    """
    prompt = before + task.template.render(row, task.tokenizer) + given
    kept = {name: row[name] for name in ("question", "entity") if name in row}
    return {**kept, "prompt": prompt, "answer": value_of(row, "answer") if answer is None else answer}
