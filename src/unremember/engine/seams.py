"""The four seams of a gradient method, and the recipe that picks one of each.

Every seam is a frozen dataclass of hyperparameters with ``init(context) -> state`` and a pure
``apply(…, state) -> (…, state)``. State is a flat dict of tensors and numbers; the engine saves it with the
checkpoint, so exact resume costs a method's author nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from unremember.data.samplings import Sampling, State
from unremember.data.split import Split

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unremember.engine.measure import Measure
    from unremember.engine.reading import Reading


@dataclasses.dataclass(frozen=True)
class Need:
    """One quantity of one text of an example: ``logprobs`` [M], ``logits`` [M, V], ``labels`` [M] or ``hidden`` [M, D] of a layer.

    ``text`` names the column (``answer``, ``alternate``); an image task has a single text, ``input``. ``states`` [M, D] are
    what the output layer makes the logits of. ``of`` names the folder of a frozen model that a reference is read of in place
    of the original.
    """

    text: str = "answer"
    what: Literal["logprobs", "logits", "labels", "hidden", "states"] = "logprobs"
    layer: int | None = None
    of: str | None = None


class View(Protocol):
    """What a forward made of the examples of one role in a micro-batch: read with the needs that were declared."""

    def read(self, need: Need) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Context:
    """What a seam may read when it starts: the model, the split (through ``task``), and how the run draws from it."""

    model: Any
    task: Any
    split: Split
    roles: tuple[str, ...]
    keys: Mapping[str, np.ndarray]
    batch_size: int
    seed: int

    @cached_property
    def reading(self) -> Reading:
        """The model's losses and gradients on any rows of the split, as the weights are when it is asked."""
        from unremember.engine.reading import Reading

        return Reading(self.model, self.task, self.split)


class Loss(Protocol):
    """Per-example loss: ``apply(view, reference, state) -> (Tensor[B], state)``, never reduced.

    ``per = "example"``: the engine divides the sum by the examples of the step; ``per = "token"``: the values are
    sums over answer tokens and the engine divides by the answer tokens of the step, so the result does not depend
    on how the step is cut into micro-batches; ``tokens`` (all, where a loss has none) says how many of each answer's it reads.
    ``reference`` reads ``reference_needs`` of the frozen original, or of another frozen model.
    """

    @property
    def needs(self) -> tuple[Need, ...]: ...
    @property
    def reference_needs(self) -> tuple[Need, ...]: ...
    @property
    def per(self) -> Literal["example", "token"]: ...
    def tokens(self, counts: np.ndarray) -> np.ndarray: ...
    def init(self, context: Context) -> State: ...
    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]: ...


class Blend(Protocol):
    """Role gradients into one update: ``apply(measure, state) -> ([Tensor], state)``.

    The blend asks ``measure`` for what it wants of the step: the gradient of all roles together, of each role, of some
    roles at displaced weights, their losses, a further batch. The update is a gradient for the optimiser or, with
    ``raw``, the change of the weights itself. With ``corrects``, ``correct(change, measure, state) -> (change, state)``
    has the last word on what the optimiser really did. ``draws`` is how many further batches a step takes at most.
    Entries of the state whose name begins with ``vectors`` have an entry for every weight's every entry, end to end: with
    the weights they are sharded, and whole in a checkpoint.
    """

    @property
    def raw(self) -> bool: ...
    @property
    def corrects(self) -> bool: ...
    @property
    def draws(self) -> int: ...
    @property
    def vectors(self) -> str: ...
    def init(self, context: Context) -> State: ...
    def apply(self, measure: Measure, state: State) -> tuple[list[Tensor], State]: ...
    def correct(self, change: list[Tensor], measure: Measure, state: State) -> tuple[list[Tensor], State]: ...


@dataclasses.dataclass(frozen=True)
class Selected:
    """The weights that may move, by name, and what is done with the model at the end (merging adapters).

    ``masks`` narrows a weight to the entries that are 1.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    finish: Any
    masks: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


class Selection(Protocol):
    """Which weights may move: everything else is frozen."""

    def apply(self, context: Context) -> Selected: ...


@dataclasses.dataclass(frozen=True)
class Term:
    """``weight`` × the loss of a role. ``loss`` is a registered name, ``{"name": …, parameters}`` or a Loss."""

    role: str
    loss: Any
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A gradient method: terms, and one choice in each other seam (a name, a mapping or a built part).

    ``derive`` adds to the split what the terms read and the data do not have (a role made of two others).
    """

    terms: tuple[Term, ...]
    blend: Any = "sum"
    sampling: Any = "paired"
    selection: Any = "all"
    derive: Callable[[Split], Split] | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(term.role for term in self.terms))


class Task(Protocol):
    """A modality: encodes rows once and turns drawn rows into views. The engine knows nothing else of it."""

    def encode(self, split: Split, role: str, texts: Sequence[str]) -> Any:
        """The role's rows, ready for :meth:`forward`."""
        ...

    def sizes(self, data: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
        """(int64[n] work of each row, for bucketing; int64[n] answer tokens of each row)."""
        ...

    def forward(self, model: Any, parts: Mapping[str, tuple[Any, np.ndarray]],
                needs: Mapping[str, Sequence[Need]]) -> Mapping[str, View]:  # fmt: skip
        """One forward over the drawn rows of some roles: ``parts[role] = (encoded, rows)``."""
        ...

    def lasting(self, model: Any, need: Need) -> tuple[Need, Callable[[Tensor], Tensor] | None]:
        """What is kept of the frozen original for a need, and what makes the need of it again (None: it is kept as it is)."""
        ...

    def digest(self) -> str:
        """What else decides the numbers: tokenizer and template, or transforms."""
        ...


__all__ = ["Blend", "Context", "Loss", "Need", "Recipe", "Sampling", "Selected", "Selection", "State", "Task", "Term", "View"]
