"""A measurement: a value, its interval, the controls it was read against, and the artefact it belongs to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from unremember.audits.bootstrap import interval, mean_draws
from unremember.observe.records import Observations

Verdict = Literal[
    "undetermined",
    "uninformative",
    "indistinguishable",
    "under-forgotten",
    "over-suppressed",
    "control",
    "measured",
]
Direction = Literal["more_knowledge", "less_knowledge", "better_utility", "harm", "neutral"]
NO_ORACLE = "no retrained oracle to compare with"
HIDDEN = ("per_example", "draws", "axis")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One figure of one artefact.

    ``value`` is None where it cannot be had (``reason`` says why); ``low``/``high`` bound it at 95 %;
    ``per_example`` float[n] is NaN where an example was skipped (``skipped`` counts reasons); ``draws`` float64[DRAWS]
    are its bootstrap draws, paired with those of other artefacts on the same data (None: no interval can be had);
    ``access`` is what the figure costs to obtain: text < logits < activations < weights;
    ``controls`` holds, by name, the values of the control artefacts; ``position`` is where the value stands on the
    axis oracle (0) → original (1); ``verdict`` says how it reads against them.

    ``axis`` is the measurement that is placed in this one's stead where the value folds knowing too much and too
    little onto one side.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    higher_is: Direction = "neutral"
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
    verdict: Verdict = "undetermined"
    note: str = ""
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The measurement as a plain JSON object, without examples and draws; what is not finite is None."""
        return {
            f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in HIDDEN
        }


def plain(value: Any) -> Any:
    """``value`` as JSON has it: no NumPy number, nothing that is not finite."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def of_role(name: str, role: str, usual: str) -> str:
    """The name of an audit's measurement, with its role where that is not the usual one: two of a kind are told apart."""
    return name if role == usual else f"{name} {role}"


def of_examples(
    name: str,
    values: np.ndarray,
    groups: Sequence[str],
    higher_is: Direction,
    seen: Observations,
    role: str,
    **more: Any,
) -> Measurement:
    """The measurement whose value is the mean over the examples of a role that have one; a single example has no interval."""
    return of_values(name, values, groups, higher_is, seen, seen.split[role].digest, **more)


def of_values(
    name: str,
    values: np.ndarray,
    groups: Sequence[str],
    higher_is: Direction,
    seen: Observations,
    data: str,
    **more: Any,
) -> Measurement:
    """The same of values that belong to no role: ``data`` names what they were measured on."""
    there = np.isfinite(values)
    blank = Measurement(
        name,
        None,
        n=int(there.sum()),
        higher_is=higher_is,
        artefact=seen.artefact,
        data=data,
        skipped={} if there.all() else {"no value": int((~there).sum())},
        per_example=values,
        **more,
    )
    if not there.any():
        return dataclasses.replace(blank, reason="no example has a finite value")
    return with_draws(
        blank, float(values[there].mean()), mean_draws(values, groups) if len(values) > 1 else None
    )


def with_draws(blank: Measurement, value: float, draws: np.ndarray | None) -> Measurement:
    """The measurement with its value and, where there are draws, its interval."""
    low, high = interval(draws) if draws is not None else (None, None)
    return dataclasses.replace(blank, value=value, low=low, high=high, draws=draws)
