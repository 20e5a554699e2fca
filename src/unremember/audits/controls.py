"""Controls: every figure is read between the original and the retrained oracle, or it is no verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unremember.audits.measurement import Measurement, interval, mean_draws
from unremember.audits.membership import MembershipLoss
from unremember.audits.probability import Probability
from unremember.data.split import Split
from unremember.observe.records import Seen
from unremember.registry import audits

MAKE_ORACLE = "no retrained oracle: make one with `unremember train --without forget …` and pass it with --oracle"
MAKE_ORIGINAL = "no original model: pass it with --original"
BLIND = "original and oracle cannot be told apart by this probe"
NOT_IN_MODEL = "the forget set is not in the model: "
COLLAPSE = 0.5
"""Utility below this share of the original's vetoes every forgetting verdict."""
SAME = 0.05
"""Forget quality above this cannot be told from the oracle."""


def default_audits(split: Split) -> list[Any]:
    """Every registered audit that applies to the split."""
    made = [entry.make() for entry in audits.all()]
    return [audit for audit in made if audit.wants(split)]


def card(chosen: Sequence[Any], seen: Seen, oracles: Sequence[Seen], original: Seen | None) -> list[Measurement]:
    """All measurements of one artefact, each read against its controls.

    A collapsed model makes every forgetting verdict *undetermined*; a forget set that the original never held is
    said in the note of each.
    """
    found = [read(audit, seen, oracles, original) for audit in chosen]
    note = in_model(original, oracles) if original else ""
    return [noted(m, note) for m in veto(found)]


def noted(mine: Measurement, note: str) -> Measurement:
    if not note or mine.higher_is == "better_utility":
        return mine
    return dataclasses.replace(mine, note="; ".join(filter(None, (mine.note, note))))


def veto(found: Sequence[Measurement]) -> list[Measurement]:
    """The measurements, *undetermined* where the model utility among them is 0 or below half of the original's."""
    utility = next((m for m in found if m.name == "model_utility"), None)
    if utility is None or utility.value is None:
        return list(found)
    before = utility.controls.get("original")
    if utility.value > 0 and (before is None or utility.value >= COLLAPSE * before):
        return list(found)
    note = f"the model collapsed (utility {utility.value:.3f}): a forgetting figure says nothing"
    return [m if m.verdict in ("measured", "control") else dataclasses.replace(m, verdict="undetermined", note=note) for m in found]


def in_model(original: Seen, oracles: Sequence[Seen]) -> str:
    """A note where the original shows no trace of the forget set, else "".

    The oracles decide where there are any (is the forget probability above theirs?), else the holdout (is the loss
    attack better than chance?); with neither nothing is said.
    """
    probability, attack = Probability(), MembershipLoss()
    if oracles and observed(probability, original):
        before, retrained = probability.measure(original, []), [probability.measure(o, []) for o in oracles]
        if before.value is not None and difference(before, retrained)[0] <= 0:
            return NOT_IN_MODEL + "its probability under the original is no higher than under the oracle"
    elif observed(attack, original):
        low = attack.measure(original, []).low
        if low is not None and low <= 0.5:
            return NOT_IN_MODEL + "the original scores it no better than the holdout"
    return ""


def observed(audit: Any, seen: Seen) -> bool:
    wants = audit.wants(seen.split)
    return bool(wants) and all(want in seen.scored for want in wants)


def read(audit: Any, seen: Seen, oracles: Sequence[Seen], original: Seen | None) -> Measurement:
    """One measurement with its controls, its position on the axis oracle (0) → original (1), and its verdict."""
    mine = audit.measure(seen, list(oracles))
    retrained = [audit.measure(other, list(oracles)) for other in oracles]
    before = audit.measure(original, list(oracles)) if original else None
    controls = {"oracle": [m.value for m in retrained]} | ({"original": before.value} if before else {})
    mine = dataclasses.replace(mine, controls=controls)
    if seen.artefact in {other.artefact for other in oracles} | ({original.artefact} if original else set()):
        return dataclasses.replace(mine, verdict="control")
    if mine.higher_is == "better_utility":
        return dataclasses.replace(mine, verdict="measured")
    lacking = MAKE_ORACLE if not oracles else MAKE_ORIGINAL if before is None else mine.reason
    if before is None or lacking:
        return dataclasses.replace(mine, verdict="undetermined", note=lacking)
    if any(m.value is None for m in (*retrained, before)):
        return dataclasses.replace(mine, verdict="undetermined", note="a control has no value")
    return (quality_verdict if mine.name == "forget_quality" else place)(mine, retrained, before)


def quality_verdict(mine: Measurement, retrained: Sequence[Measurement], before: Measurement) -> Measurement:
    """Forget quality is itself a test against the first oracle; the other oracles' p-values are its noise floor."""
    floor = min(SAME, *(m.value or 0.0 for m in retrained))
    if (before.value or 0.0) > floor:
        return dataclasses.replace(mine, verdict="uninformative", note=BLIND)
    if (mine.value or 0.0) > floor:
        return dataclasses.replace(mine, verdict="indistinguishable")
    at, oracle, start = (m.extra["median_ratio"] for m in (mine, retrained[0], before))
    note = "the truth ratios are disjoint from the oracle's (saturated)" if mine.extra["saturated"] else ""
    beyond = (at - oracle) * (start - oracle) < 0
    return dataclasses.replace(mine, verdict="over-suppressed" if beyond else "under-forgotten", note=note)


def place(mine: Measurement, retrained: Sequence[Measurement], before: Measurement) -> Measurement:
    """Position and verdict from the paired differences to the oracle, with the spread between oracles as noise floor."""
    values = np.array([m.value for m in retrained], dtype=np.float64)
    oracle, floor = float(values.mean()), float(np.ptp(values))
    span, gap = (before.value or 0.0) - oracle, (mine.value or 0.0) - oracle
    span_low, span_high = difference(before, retrained)
    low, high = difference(mine, retrained)
    if abs(span) <= floor or span_low <= 0 <= span_high:
        return dataclasses.replace(mine, verdict="uninformative", note=BLIND)
    ends = sorted((low / span, high / span))
    placed = dataclasses.replace(mine, position=gap / span, position_low=ends[0], position_high=ends[1])
    if abs(gap) <= floor or low <= 0 <= high:
        return dataclasses.replace(placed, verdict="indistinguishable")
    return dataclasses.replace(placed, verdict="under-forgotten" if gap / span > 0 else "over-suppressed")


def difference(mine: Measurement, retrained: Sequence[Measurement]) -> tuple[float, float]:
    """95 % interval of value - oracle: paired over the same examples where there are any, else from the intervals."""
    paired = [m.per_example for m in retrained if m.per_example is not None]
    if mine.per_example is not None and mine.groups is not None and len(paired) == len(retrained):
        gaps = mine.per_example - np.mean(paired, axis=0)
        if np.isfinite(gaps).any():
            return interval(mean_draws(gaps, mine.groups))
    gap = (mine.value or 0.0) - float(np.mean([m.value or 0.0 for m in retrained]))
    width = math.hypot(half_width(mine), max(map(half_width, retrained)))
    return gap - width, gap + width


def half_width(mine: Measurement) -> float:
    return ((mine.high or 0.0) - (mine.low or 0.0)) / 2
