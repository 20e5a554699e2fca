"""The rule by which every figure of forgetting is read between the original and the retrained oracles.

All differences are paired: the bootstrap draws of all artefacts hold the same subjects.

* The original must know more than the oracles: the 95 % interval of original − oracle lies, on the side of
  knowledge, beyond the spread between the oracles. Otherwise the figure is *uninformative*.
* The gap is the figure − the oracles' mean. Where its interval lies beyond the spread between the oracles,
  the model is *under-forgotten* (the original's side) or *over-suppressed* (the other side).
* Where it does not, the model is *indistinguishable*, provided that the interval ends nearer to the oracles
  than to the original. A wider interval tells nothing: *undetermined*.

The spread between the oracles (greatest − least value) is the noise floor. With one oracle it is unknown: a
twentieth of the way to the original stands in for it, the verdict holds against that oracle alone, and its
note says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from unremember.audits.bootstrap import interval
from unremember.audits.measurement import AuditVerdict, Measurement

MAKE_ORACLE = (
    "no retrained oracle was given, so this figure has no verdict: make one with "
    "`unremember train --without forget -d DATA -o ORACLE` and pass it with --oracle ORACLE"
)
MAKE_ORIGINAL = (
    "the original was not given, so this figure has no verdict: pass the model before forgetting with "
    "--original "
    "(`unremember train -d DATA -o ORIGINAL` makes one)"
)
ONE_ORACLE = (
    "with one oracle the spread between oracles is unknown: make another with "
    "`unremember train --without forget -d DATA -o ORACLE seed=1`"
)
BLIND = "this figure cannot tell the original from the oracle"
SWAPPED = "the original knows less than the oracle: are --original and --oracle swapped?"
WIDE = (
    "the interval reaches half-way to the original: there are too few examples, "
    "or the oracles lie too far apart"
)
NO_INTERVAL = "no interval, so no verdict: there is a single example, or the audit gives no bootstrap draws"
MISSING = (
    "the number of examples without a value differs from that of the controls: the figures do not compare"
)
SATURATED = "the truth ratios are disjoint from the oracle's (saturated)"
FORGETTING = ("indistinguishable", "under-forgotten", "over-suppressed", "uninformative")
"""The verdicts that say how much was forgotten, or that the figure cannot."""
_SAME_QUALITY = 0.05
"""A forget quality above this cannot be told from the oracle."""
_STAND_IN = 0.05
"""The noise floor of a single oracle, as a share of the way to the original."""
_HALFWAY = 0.5
"""An interval that ends nearer to the oracle (0) than to the original (1) can clear a model."""


def with_note(measurement: Measurement, note: str) -> Measurement:
    """Return a measurement with a further note."""
    return dataclasses.replace(measurement, note="; ".join(filter(None, (measurement.note, note))))


def verdict_from_controls(
    measurement: Measurement, retrained: Sequence[Measurement], original: Measurement | None
) -> Measurement:
    """Return a figure of forgetting with its verdict, as far as its controls allow one.

    Args:
        measurement: The figure of the model.
        retrained: The same figure of the oracles.
        original: That of the original.
    """
    missing = MAKE_ORACLE if not retrained else MAKE_ORIGINAL if original is None else measurement.reason
    if original is None or missing:
        return dataclasses.replace(measurement, verdict="undetermined", note=missing)
    if any(control.value is None for control in (*retrained, original)):
        return dataclasses.replace(measurement, verdict="undetermined", note="a control has no value")
    rule = quality_verdict if measurement.name == "forget_quality" else position_on_axis
    placed = rule(measurement, retrained, original)
    return with_note(placed, ONE_ORACLE) if len(retrained) == 1 and placed.verdict in FORGETTING else placed


def quality_verdict(
    measurement: Measurement, retrained: Sequence[Measurement], original: Measurement
) -> Measurement:
    """Return the verdict on a forget quality. It is itself a test: the oracles' lowest p is its noise floor.

    The axis tells the side. A p-value above the floor clears a model only where the axis does not leave open
    how much the model knows.
    """
    side = position_on_axis(measurement, retrained, original)
    if side.position is None:
        return dataclasses.replace(measurement, verdict=side.verdict, note=side.note)
    floor = min(_SAME_QUALITY, *(oracle.value or 0.0 for oracle in retrained))
    if (original.value or 0.0) > floor:
        return dataclasses.replace(measurement, verdict="uninformative", note=BLIND)
    if (measurement.value or 0.0) > floor:
        if side.note == WIDE:
            return dataclasses.replace(measurement, verdict="undetermined", note=WIDE)
        return dataclasses.replace(measurement, verdict="indistinguishable", note="")
    verdict: AuditVerdict = "over-suppressed" if side.position < 0 else "under-forgotten"
    note = SATURATED if measurement.extra["saturated"] else ""
    return dataclasses.replace(measurement, verdict=verdict, note=note)


def position_on_axis(
    measurement: Measurement, retrained: Sequence[Measurement], original: Measurement
) -> Measurement:
    """Return a figure with its position between oracle (0) and original (1), and its verdict by this rule.

    Figures that have an axis of their own are placed on it.
    """
    figure, start, *oracles = (control.axis or control for control in (measurement, original, *retrained))
    if not comparable([figure, start, *oracles]):
        no_draws = any(control.draws is None for control in (figure, start, *oracles))
        return dataclasses.replace(
            measurement, verdict="undetermined", note=NO_INTERVAL if no_draws else MISSING
        )

    # 1. The noise floor, and the sign by which more means more knowledge.
    values = np.array([oracle.value for oracle in oracles], dtype=np.float64)
    length = (start.value or 0.0) - values.mean()
    floor = np.ptp(values) if len(values) > 1 else _STAND_IN * abs(length)
    sign = -1 if figure.higher_is == "less_knowledge" else 1

    # 2. The original must know more than the oracles.
    span, gaps = gap_draws(start, oracles), gap_draws(figure, oracles)
    span_low, span_high = sorted(sign * end for end in interval(span))
    if span_low <= floor:
        note = SWAPPED if span_high < -floor else BLIND
        return dataclasses.replace(measurement, verdict="uninformative", note=note)

    # 3. The position, with the interval of the paired ratio.
    with np.errstate(divide="ignore", invalid="ignore"):
        nearest, furthest = interval(gaps / span)
    position = float(((figure.value or 0.0) - values.mean()) / length)
    placed = dataclasses.replace(measurement, position=position, position_low=nearest, position_high=furthest)

    # 4. The gap against the noise floor; within it, an interval that is narrow enough clears the model.
    low, high = sorted(sign * end for end in interval(gaps))
    if low > floor:
        return dataclasses.replace(placed, verdict="under-forgotten")
    if high < -floor:
        return dataclasses.replace(placed, verdict="over-suppressed")
    if nearest > -_HALFWAY and furthest < _HALFWAY:
        return dataclasses.replace(placed, verdict="indistinguishable")
    return dataclasses.replace(placed, verdict="undetermined", note=WIDE)


def comparable(measurements: Sequence[Measurement]) -> bool:
    """Return whether all have draws over equally many examples: a missing value could hide what is known."""
    skipped = measurements[0].skipped
    return all(figure.draws is not None and figure.skipped == skipped for figure in measurements)


def gap_draws(measurement: Measurement, retrained: Sequence[Measurement]) -> np.ndarray:
    """Return float64[DRAWS], the figure − the oracles' mean in each draw."""
    oracles = [np.asarray(oracle.draws) for oracle in retrained]
    return np.asarray(measurement.draws) - np.mean(oracles, axis=0)
