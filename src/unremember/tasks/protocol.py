"""The protocol of a task: how rows become a forward, what may be read of it, how a model is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np

from unremember.data.split import Split

if TYPE_CHECKING:
    from torch import Tensor

Quantity = Literal["logprobs", "logits", "labels", "hidden", "states"]


@dataclasses.dataclass(frozen=True)
class Need:
    """One quantity of one text of an example, over the M answer tokens of a batch (one entry an image).

    Args:
        text: The column that is read (``answer``, ``alternate`` …); an image task has a single one,
            ``input``.
        what: ``logprobs`` [M], ``logits`` [M, V], ``labels`` [M], ``hidden`` [M, D] after block ``layer``, or
            ``states`` [M, D], from which the output layer makes the logits.
        layer: The block whose output ``hidden`` is; negative numbers count from the end.
        of: The folder of a frozen model to read in place of the original; None for the original.
    """

    text: str = "answer"
    what: Quantity = "logprobs"
    layer: int | None = None
    of: str | None = None


class View(Protocol):
    """What one forward gives of the examples of one role.

    It answers the needs that were declared, and no other.
    """

    def read(self, need: Need) -> Any: ...


class Task(Protocol):
    """A modality. The engine, the observations and the audits know nothing else of it.

    ``name`` is the registered name; ``training_loss`` names the loss that a model of this task is trained
    with; ``digest`` covers whatever else decides a model's figures (a tokenizer and its templates, or
    transforms).
    """

    @property
    def name(self) -> str: ...
    @property
    def training_loss(self) -> str: ...
    @property
    def digest(self) -> str: ...

    def encode(self, split: Split, role: str, texts: Sequence[str]) -> Any:
        """Prepare some columns of a role's rows for ``forward``, once."""
        ...

    def sizes(self, data: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return int64[n] twice: the work of each row (for batching) and its answer tokens."""
        ...

    def check(self, needs: Sequence[Need]) -> None:
        """Raise ConfigError for the first need that a view of this task cannot give."""
        ...

    def forward(
        self,
        model: Any,
        parts: Mapping[str, tuple[Any, np.ndarray]],
        needs: Mapping[str, Sequence[Need]],
    ) -> Mapping[str, View]:
        """Run one forward over the drawn rows of some roles: ``parts[role] = (encoded, rows int64[B])``."""
        ...

    def compact(self, model: Any, need: Need) -> tuple[Need, Callable[[Tensor], Tensor] | None]:
        """Return the need to store in place of a large one, and what rebuilds it (None: nothing)."""
        ...

    def describe(self, model: Any) -> str:
        """Say how many tokens or classes a model knows; two models compare if it is the same."""
        ...

    def save(self, model: Any, folder: Any) -> None:
        """Write the model and the task to a folder that appears whole or not at all."""
        ...

    @classmethod
    def load(cls, name: str, template: str | Mapping[str, Any] | None = None) -> tuple[Any, Self]:
        """Load a model and its task from a folder or hub name; ``template`` overrides the stored one."""
        ...
