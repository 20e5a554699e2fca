"""The four seams of a gradient method (loss, blend, sampling, selection), as the loop reads them.

Every part is a frozen dataclass of hyperparameters with ``init(context) -> state`` and a pure ``apply(…,
state) -> (…, state)``. State is a flat dict of tensors and numbers; the loop saves it with the checkpoint, so
exact resume costs the author of a part nothing. The protocol of a sampling is in ``samplings/``, that of a
blend in ``blends/``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from unremember.data.split import Split
from unremember.engine.optimizers import AdamW, Milestones, Optimizer
from unremember.engine.settings import Settings
from unremember.errors import ConfigError, did_you_mean
from unremember.registry import blends, losses, samplings, selections
from unremember.tasks.protocol import Need, Task, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unremember.engine.probe import GradientProbe

State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Context:
    """What a part may read when it starts, and at each refresh.

    Args:
        model: The model that is trained, with its weights as they are now.
        task: The task of the model.
        split: The rows by role.
        roles: The roles of the terms; the first is the anchor, whose rows make an epoch.
        forget_roles: Those of ``roles`` that are to be forgotten; the others are retained.
        keys: uint64[n] by role: one key a row, from its content.
        batch_size: Rows of the anchor role in a step.
        seed: The seed of the run.
    """

    model: Any
    task: Task
    split: Split
    roles: tuple[str, ...]
    keys: Mapping[str, np.ndarray]
    batch_size: int
    seed: int
    forget_roles: tuple[str, ...] = ("forget",)

    @property
    def probe(self) -> GradientProbe:
        """Losses and gradients of any rows of the split, with the weights as they are when it is asked."""
        from unremember.engine.probe import (
            GradientProbe,
        )  # torch is slow to import, and lists of methods do without it

        return GradientProbe(self.model, self.task, self.split)


class Loss(Protocol):
    """A loss per example: ``apply(view, reference, state) -> (Tensor[B], state)``, never reduced.

    ``needs`` are read of the current model; ``reference_needs`` of the frozen original, or of another frozen
    model. With ``per = "example"`` the engine divides the sum by the examples of the step. With ``per =
    "token"`` the values are sums over answer tokens, and the engine divides by the answer tokens of the step,
    so the result does not depend on how the step is cut into micro-batches. ``tokens(counts)`` says how many
    tokens of each answer are read (a loss without it reads all). A loss that reads the model between steps
    names an interval in steps, ``refresh_every`` (0: before the first step alone;
    None: never), after which ``refresh(context, state) -> state`` is called.
    """

    @property
    def needs(self) -> tuple[Need, ...]: ...
    @property
    def reference_needs(self) -> tuple[Need, ...]: ...
    @property
    def per(self) -> Literal["example", "token"]: ...
    @property
    def refresh_every(self) -> int | None: ...
    def tokens(self, counts: np.ndarray) -> np.ndarray: ...
    def init(self, context: Context) -> State: ...
    def refresh(self, context: Context, state: State) -> State: ...
    def apply(self, view: View, reference: View, state: State) -> tuple[Tensor, State]: ...


@dataclasses.dataclass(frozen=True)
class Selected:
    """The weights that may move, and what comes with moving them.

    Args:
        parameters: The weights by name; everything else is frozen.
        finish: Called with the model when training ends; returns the model (adapters merged, say).
        masks: By name of a weight, a tensor of its shape: only entries that are 1 move.
        penalty: Returns a scalar of the weights that is added to every step's objective (None: nothing is).
        after_step: Called with the step's learning rate after the optimiser moved the weights: a proximal
            step.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    finish: Callable[[Any], Any]
    masks: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    penalty: Callable[[], Tensor] | None = None
    after_step: Callable[[float], None] | None = None


class Selection(Protocol):
    """Which weights may move: everything else is frozen."""

    def apply(self, context: Context) -> Selected: ...


@dataclasses.dataclass(frozen=True)
class Term:
    """``weight`` × the loss of a role; the weight is 0 or above.

    ``loss`` is a registered name, ``{"name": …, parameters}`` or a built loss; None is the training loss of
    the task.
    """

    role: str
    loss: Any = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"the weight of the {self.role} term must be 0 or above, not {self.weight}")


@dataclasses.dataclass(frozen=True)
class Seams:
    """What a gradient method is made of: terms, and one part in each other seam.

    A part is a registered name, a mapping ``{"name": …, parameters}`` or a built part.

    Args:
        terms: The weighted losses, each of one role.
        blend: How the gradients of the roles become one update.
        sampling: Which rows meet in a step, with which weight.
        selection: Which weights may move.
        optimizer: What turns a gradient into a change of the weights.
        schedule: The course of the learning rate; None takes that of the settings.
        derive: Adds to the split what the terms read and the data lack, such as a role made of two others.
        owns: The seams that make the method what it is: they cannot be overridden.
        forget_roles: The roles to be forgotten; none named: the role of the first term.
    """

    terms: tuple[Term, ...]
    blend: Any = "sum"
    sampling: Any = "paired"
    selection: Any = "all"
    optimizer: Optimizer = dataclasses.field(default_factory=AdamW)
    schedule: Milestones | None = None
    derive: Callable[[Split], Split] | None = None
    owns: tuple[str, ...] = ()
    forget_roles: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the terms, in their order."""
        return tuple(dict.fromkeys(term.role for term in self.terms))

    @property
    def forgets(self) -> tuple[str, ...]:
        """The roles to be forgotten."""
        return self.forget_roles or self.roles[:1]

    def check_parts(self) -> None:
        """Raise ConfigError for a part that is unknown, or whose parameters it does not take."""
        for term in self.terms:
            if term.loss is not None:
                losses.make(term.loss)
        blends.make(self.blend)
        samplings.make(self.sampling)
        selections.make(self.selection)

    def derived(self, split: Split) -> Split:
        """Return the split with what the terms read and the data lack."""
        return self.derive(split) if self.derive else split


@dataclasses.dataclass(frozen=True)
class MatchedForgetting:
    """Ends a phase once a role is forgotten to a stated score: the only fair way to compare methods.

    Args:
        score: Ends where the mean probability of the role's answers (per token, or of an image's label) is at
            most this.
        role: The role that is scored.
        every: Steps between two evaluations; 0: an epoch.
    """

    score: float
    role: str = "forget"
    every: int = 0


@dataclasses.dataclass(frozen=True)
class Phase:
    """A gradient method, and how long it runs before the next phase takes over.

    Args:
        recipe: The method.
        until: A number of steps, an ``"epoch"``, or matched forgetting; None: all steps of the settings.
        settings: Settings of this phase that differ from the run's, such as ``{"lr": 1e-4}``.
    """

    recipe: Seams
    until: int | Literal["epoch"] | MatchedForgetting | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.settings:
            if name not in Settings.__dataclass_fields__:
                hint = did_you_mean(name, Settings.__dataclass_fields__)
                raise ConfigError(f"unknown setting {name!r} of a phase: {hint}")

    def steps(self, run_steps: int, per_epoch: int) -> int:
        """Return the most steps that the phase takes in a round."""
        if isinstance(self.until, int):
            return self.until
        return per_epoch if self.until == "epoch" else run_steps
