"""A measurement: a value, its interval, the controls it was read against, and the artefact it belongs to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from unremember.audits.bootstrap import interval, mean_draws
from unremember.observe.records import Observations

AuditVerdict = Literal[
    "undetermined",
    "uninformative",
    "indistinguishable",
    "under-forgotten",
    "over-suppressed",
    "control",
    "measured",
]
HigherIs = Literal["more_knowledge", "less_knowledge", "better_utility", "harm", "neutral"]
NO_ORACLE = "no retrained oracle was given, and the figure is computed from one"
_NOT_IN_ROWS = ("per_example", "draws", "axis")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One figure of one artefact.

    Args:
        name: The name of the figure.
        value: The figure; None where it does not exist (``reason`` says why).
        low: The lower end of its 95 % interval; ``high`` is the upper one.
        n: The number of examples that have a value.
        higher_is: What a higher value means.
        access: What an auditor needs for the figure: text < logits < activations < weights.
        artefact: The digest of the artefact.
        data: The digest of the data, or their name.
        skipped: The number of examples without a value, by reason.
        per_example: float[n], NaN for an example that was skipped.
        draws: float64[DRAWS], the bootstrap draws, paired with those of other artefacts on the same data;
            None where no interval exists.
        axis: The measurement that is placed between the controls in place of this one, where the value folds
            knowing too much and too little onto one side.
        controls: The values of the controls, by name.
        position: Where the value stands on the axis from the oracle (0) to the original (1), with the ends
            ``position_low`` and ``position_high`` of its interval.
        verdict: How the value reads against the controls; ``note`` says more.
        extra: Further figures.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    higher_is: HigherIs = "neutral"
    access: Literal["text", "logits", "activations", "weights"] = "logits"
    artefact: str = ""
    data: str = ""
    reason: str = ""
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    per_example: np.ndarray | None = None
    draws: np.ndarray | None = None
    axis: Measurement | None = None
    controls: dict[str, Any] = dataclasses.field(default_factory=dict)
    position: float | None = None
    position_low: float | None = None
    position_high: float | None = None
    verdict: AuditVerdict = "undetermined"
    note: str = ""
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the measurement as a JSON object, without examples and draws; None for infinity and NaN."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: json_value(getattr(self, name)) for name in names if name not in _NOT_IN_ROWS}


def json_value(value: Any) -> Any:
    """Return a value as JSON has it: plain numbers for those of NumPy, None for what is not finite."""
    if isinstance(value, Mapping):
        return {key: json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(entry) for entry in value]
    if isinstance(value, np.generic):
        return json_value(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def name_with_role(name: str, role: str, usual: str) -> str:
    """Return the name of a measurement, with its role where that is not the usual one."""
    return name if role == usual else f"{name} {role}"


def measure_mean(
    name: str,
    values: np.ndarray,
    observations: Observations,
    role: str,
    higher_is: HigherIs = "more_knowledge",
    **fields: Any,
) -> Measurement:
    """Return the measurement whose value is the mean over a role's rows.

    Args:
        values: float64[n], a value for each row; NaN for a row without one, which is skipped.
        observations: What the values were computed from.
        role: The role; its groups are the units of resampling.
        fields: Further fields of the measurement.
    """
    rows = observations.split[role]
    return measure_mean_of_values(
        name, values, rows.groups(), observations.artefact, rows.digest, higher_is, **fields
    )


def measure_mean_of_values(
    name: str,
    values: np.ndarray,
    groups: Sequence[str],
    artefact: str,
    data: str,
    higher_is: HigherIs,
    **fields: Any,
) -> Measurement:
    """Return the measurement whose value is the mean of some values; a single value has no interval.

    Args:
        groups: The unit of resampling of each value.
        artefact: The digest of the artefact.
        data: The name or digest of what was measured on.
    """
    finite = np.isfinite(values)
    blank = Measurement(
        name,
        None,
        n=int(finite.sum()),
        higher_is=higher_is,
        artefact=artefact,
        data=data,
        skipped={} if finite.all() else {"no value": int((~finite).sum())},
        per_example=values,
        **fields,
    )
    if not finite.any():
        return dataclasses.replace(blank, reason="no example has a finite value")
    draws = mean_draws(values, groups) if len(values) > 1 else None
    return with_draws(blank, float(values[finite].mean()), draws)


def with_draws(blank: Measurement, value: float, draws: np.ndarray | None) -> Measurement:
    """Return a measurement with its value and, where there are draws, its interval."""
    low, high = interval(draws) if draws is not None else (None, None)
    return dataclasses.replace(blank, value=value, low=low, high=high, draws=draws)
