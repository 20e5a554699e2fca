"""A measurement: a value, its interval, the controls it was read against, and the artefact it belongs to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Verdict = Literal[
    "undetermined", "uninformative", "indistinguishable", "under-forgotten", "over-suppressed", "control", "measured"
]
Direction = Literal["more_knowledge", "less_knowledge", "better_utility", "neutral"]
DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One figure of one artefact.

    ``value`` is None where it cannot be had (``reason`` says why); ``low``/``high`` bound it at 95 %;
    ``per_example`` float[n] is NaN where an example was skipped (``skipped`` counts reasons);
    ``access`` is what the figure costs to obtain: text < logits < activations < weights;
    ``controls`` holds, by name, the values of the control artefacts; ``position`` is where the value stands on the
    axis oracle (0) → original (1); ``verdict`` says how it reads against them.
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
    groups: Sequence[str] | None = None
    controls: dict[str, Any] = dataclasses.field(default_factory=dict)
    position: float | None = None
    position_low: float | None = None
    position_high: float | None = None
    verdict: Verdict = "undetermined"
    note: str = ""
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The measurement as a plain JSON object, without the per-example values."""
        skip = {"per_example", "groups"}
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skip}
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in fields.items()}


def resamples(groups: Sequence[str], seed: int = 0) -> np.ndarray:
    """float64[DRAWS, n]: how often each example enters each bootstrap draw; whole groups are drawn, not rows."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    return draws[:, index].astype(np.float64)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws."""
    low, high = np.percentile(draws[np.isfinite(draws)], [2.5, 97.5])
    return float(low), float(high)


def mean_draws(values: np.ndarray, groups: Sequence[str], seed: int = 0) -> np.ndarray:
    """float64[DRAWS]: the mean of float[n] ``values`` in each bootstrap draw; entries that are not finite are skipped."""
    there = np.isfinite(values)
    counts = resamples([g for g, ok in zip(groups, there) if ok], seed)
    return counts @ values[there] / counts.sum(1)


def mean_interval(values: np.ndarray, groups: Sequence[str]) -> tuple[float, float, float]:
    """(mean, low, high) of float[n] ``values``; entries that are not finite are skipped."""
    return float(values[np.isfinite(values)].mean()), *interval(mean_draws(values, groups))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """P(positive > negative) + ½ P(equal)."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    upto = np.searchsorted(ordered, positive, "right")
    return float((below + upto).mean() / (2 * len(negative)))


def auc_interval(positive: np.ndarray, negative: np.ndarray, positive_groups: Sequence[str],
                 negative_groups: Sequence[str]) -> tuple[float, float, float]:  # fmt: skip
    """(AUC, low, high), both sides resampled by group; needs no n × n matrix."""
    order = np.argsort(negative)
    left, right = resamples(positive_groups, 1), resamples(negative_groups, 2)[:, order]
    weight = np.pad(np.cumsum(right, 1), ((0, 0), (1, 0)))
    below, upto = (weight[:, np.searchsorted(negative[order], positive, side)] for side in ("left", "right"))
    draws = (left * (below + upto)).sum(1) / (2 * left.sum(1) * right.sum(1))
    return auc(positive, negative), *interval(draws)


def of_examples(name: str, values: np.ndarray, groups: Sequence[str], higher_is: Direction, seen: Any, role: str,
                **more: Any) -> Measurement:  # fmt: skip
    """The measurement whose value is the mean over examples."""
    skipped = {"no value": int((~np.isfinite(values)).sum())} if not np.isfinite(values).all() else {}
    if not np.isfinite(values).any():
        return Measurement(name, None, reason="no example has a finite value", artefact=seen.artefact, skipped=skipped, higher_is=higher_is)
    value, low, high = mean_interval(values, groups)
    return Measurement(name, value, low, high, int(np.isfinite(values).sum()), higher_is, artefact=seen.artefact,
                       data=seen.split[role].digest, skipped=skipped, per_example=values, groups=list(groups), **more)  # fmt: skip
