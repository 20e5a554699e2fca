"""The protocol of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from unremember.audits.measurement import Measurement
from unremember.data.split import Split
from unremember.observe.protocol import ObservationRequest
from unremember.observe.records import Observations


class Audit(Protocol):
    """One figure of an artefact: a frozen dataclass, registered by name, that never runs a model."""

    def requests(self, split: Split) -> Sequence[ObservationRequest[Any]]:
        """Return the observations that the audit reads; none where the split lacks the roles or columns."""
        ...

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        """Measure one artefact.

        Args:
            observations: What was observed of it.
            oracles: What was observed of models retrained without the forget set, for the few audits whose
                very formula needs them.
        """
        ...
