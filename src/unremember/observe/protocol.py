"""The protocol of an observation: one quantity of a model on some data, asked for by a request.

A kind of observation is a frozen dataclass, registered in ``unremember.registry.observations``. The request
is an instance of it: its fields are the parameters. The store computes what is missing, keeps it, and decodes
it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast

import numpy as np

from unremember.data.split import Split
from unremember.tasks.artefact import Artefact

Arrays = Mapping[str, np.ndarray]
"""What is stored of one observation: arrays by name."""
ObservedValue = TypeVar("ObservedValue")
ObservedValue_co = TypeVar("ObservedValue_co", covariant=True)


class ObservationRequest(Protocol[ObservedValue_co]):
    """A request for one observation, and how its kind computes it.

    ``task`` names the task whose artefacts can give it ("" for any). ``stored`` says whether the store keeps
    it: not where something that no digest covers decides it. Requests are hashable, and equal where their
    parameters are.
    """

    @property
    def task(self) -> str: ...
    @property
    def stored(self) -> bool: ...

    def requires(self) -> Sequence[ObservationRequest[Any]]:
        """Return the observations that this one builds on."""
        ...

    def key(self, split: Split) -> str:
        """Hash the data and the parameters that decide the observation beside the artefact."""
        ...

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> Mapping[Self, Arrays]:
        """Compute all of these requests in as few passes over the model as possible."""
        ...

    def decode(self, arrays: Arrays, context: ObservationContext) -> ObservedValue_co:
        """Return the value that audits read."""
        ...


@dataclasses.dataclass(frozen=True)
class ObservationContext:
    """What a kind may read while it observes.

    Args:
        artefact: The artefact that is observed; its model is in evaluation mode and on this process's device.
        split: The data.
        quiet: Whether to show no progress.
        values: The values of the required observations.
        latest: Returns the arrays that the store wrote last for a request, for whichever artefact; None
            without any.
    """

    artefact: Artefact
    split: Split
    quiet: bool
    values: Mapping[ObservationRequest[Any], Any]
    latest: Callable[[ObservationRequest[Any]], Arrays | None]

    @property
    def model(self) -> Any:
        """The model of the artefact."""
        return self.artefact.model

    @property
    def task(self) -> Any:
        """The task of the artefact. It is of the kind that the request names."""
        return self.artefact.task

    def __getitem__(self, request: ObservationRequest[ObservedValue]) -> ObservedValue:
        """Return the value of a required observation."""
        return cast(ObservedValue, self.values[request])


@dataclasses.dataclass(frozen=True)
class RoleRequest:
    """What most kinds share: they observe one role of a language task, require nothing, and give one array.

    Another role with the same rows is the same observation: the key holds the rows, not the name of their
    role.
    """

    role: str
    task: ClassVar[str] = "language"
    stored: ClassVar[bool] = True

    def requires(self) -> tuple[ObservationRequest[Any], ...]:
        return ()

    def key(self, split: Split) -> str:
        fields = (field.name for field in dataclasses.fields(self) if field.name != "role")
        parameters = [f"{name}={getattr(self, name)!r}" for name in fields]
        return request_digest(type(self), split[self.role].digest, *parameters)

    def decode(self, arrays: Arrays, context: ObservationContext) -> Any:
        return arrays["values"]


def request_digest(kind: type, *parts: str) -> str:
    """Hash the name of a kind and what decides one of its observations: SHA-256 (hex), cut to 128 bits."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    return hashlib.sha256("\x00".join([name, *parts]).encode()).hexdigest()[:32]
