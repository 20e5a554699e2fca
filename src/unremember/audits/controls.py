"""Controls: every figure is read between the original and the retrained oracles, or it is no verdict.

The rule, for every audit alike. All differences are paired: the bootstrap draws of all artefacts hold the same subjects.

* The original must know more than the oracles: the 95 % interval of original − oracle lies, on the side of knowledge,
  beyond the spread between the oracles. Else *uninformative*.
* The gap is the figure − the oracles' mean. Where its interval lies beyond the spread between the oracles, the model
  is *under-forgotten* (the original's side) or *over-suppressed* (the other side).
* Where it does not, the model is *indistinguishable*, provided that the interval ends nearer to the oracles than to
  the original; a wider one tells nothing and is *undetermined*.

The spread between the oracles (greatest − least value) is the noise floor. With one oracle it is unknown: a twentieth
of the way to the original stands in for it, the verdict holds against that oracle alone, and its note says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from unremember.audits.bootstrap import interval
from unremember.audits.measurement import Measurement
from unremember.audits.membership import MembershipLoss
from unremember.audits.probability import Probability
from unremember.data.split import Split
from unremember.observe.records import Observations
from unremember.registry import audits

MAKE_ORACLE = (
    "no retrained oracle: make one with `unremember train --without forget …` and pass it with --oracle"
)
MAKE_ORIGINAL = (
    "no original model: pass the one before forgetting with --original (`unremember train …` makes one)"
)
ONE_ORACLE = "one oracle: how far two of them differ is unknown; make another with `unremember train --without forget … seed=1`"
BLIND = "original and oracle cannot be told apart by this probe"
SWAPPED = "the original knows less than the oracle: are --original and --oracle swapped?"
WIDE = "the interval reaches half-way to the original: too few examples, or oracles too far apart, to tell"
NO_INTERVAL = "no interval, so no verdict: the audit has a single example, or gives no bootstrap draws"
MISSING = "examples without a value differ from those of the controls: what is left does not compare"
SATURATED = "the truth ratios are disjoint from the oracle's (saturated)"
UNCHECKED = "utility was not measured: a collapsed model is not ruled out"
NOT_IN_MODEL = "the forget set is not in the model: "
THE_ORIGINAL, AN_ORACLE = (
    "these are the original's weights, bit for bit",
    "these are an oracle's weights, bit for bit",
)
COLLAPSE = 0.5
"""Utility below this share of the original's vetoes every forgetting verdict."""
SAME = 0.05
"""Forget quality above this cannot be told from the oracle."""
STAND_IN = 0.05
"""The noise floor of a single oracle, as a share of the way to the original."""
HALFWAY = 0.5
"""An interval that ends nearer to the oracle (0) than to the original (1) can clear a model."""
FORGETTING = ("indistinguishable", "under-forgotten", "over-suppressed", "uninformative")


def default_audits(split: Split) -> list[Any]:
    """The audits that the split names; else every registered one that applies to it and does not say ``default=False`` of itself."""
    if split.audits:
        return [audits.make(spec) for spec in split.audits]
    made = [entry.make() for entry in audits.all() if entry.facts.get("default", True)]
    return [audit for audit in made if audit.wants(split)]


def requests_of(chosen: Sequence[Any], split: Split) -> list[Any]:
    """Return what some audits ask for, each request once."""
    return list(dict.fromkeys(request for audit in chosen for request in audit.wants(split)))


def card(
    chosen: Sequence[Any],
    seen: Observations,
    oracles: Sequence[Observations],
    original: Observations | None,
    recognise: bool = True,
) -> list[Measurement]:
    """All measurements of one artefact, each read against its controls.

    An artefact with a control's own weights is that control and has no verdict; without ``recognise`` it has one (an attack
    may end at the original's weights, and that is what it found).
    A collapsed model, or a collapsed oracle, makes every forgetting verdict *undetermined*; a forget set that the
    original never held is said in the note of each. An oracle that is given twice counts once.
    """
    oracles = list({oracle.artefact: oracle for oracle in oracles}.values())
    found = [read(audit, seen, oracles, original, recognise) for audit in chosen]
    note = in_model(original, oracles) if original else ""
    return [m if m.higher_is == "better_utility" else noted(m, note) for m in veto(found)]


def noted(mine: Measurement, note: str) -> Measurement:
    return dataclasses.replace(mine, note="; ".join(filter(None, (mine.note, note))))


def veto(found: Sequence[Measurement]) -> list[Measurement]:
    """The measurements, *undetermined* where a utility collapsed: 0, or below half of the original's.

    Every figure of what was to be kept is a utility. An oracle whose utility collapsed is no control. Where none was measured, a
    model that is cleared is told so.
    """
    utilities = [m for m in found if m.higher_is == "better_utility" and m.value is not None]
    if not utilities:
        return [noted(m, UNCHECKED) if m.verdict == "indistinguishable" else m for m in found]
    fallen = list(dict.fromkeys(line for utility in utilities for line in collapsed(utility)))
    if not fallen:
        return list(found)
    note = f"{' and '.join(fallen)}: a forgetting figure says nothing"
    return [
        dataclasses.replace(m, verdict="undetermined", note=note)
        if m.verdict in FORGETTING or m.note.startswith(WIDE)
        else m
        for m in found
    ]


def collapsed(utility: Measurement) -> list[str]:
    """Who lost this utility: the model, an oracle."""
    least = COLLAPSE * (utility.controls.get("original") or 0.0)
    lowest = {
        "model": utility.value or 0.0,
        "oracle": min((value or 0.0 for value in utility.controls["oracle"]), default=1.0),
    }
    return [
        f"the {name} collapsed (utility {value:.3f})"
        for name, value in lowest.items()
        if value <= 0 or value < least
    ]


def in_model(original: Observations, oracles: Sequence[Observations]) -> str:
    """A note where the original shows no trace of the forget set, else "".

    The oracles decide where there are any (is the forget probability above theirs?), else the holdout (is the loss
    attack better than chance?); with neither nothing is said.
    """
    probability, attack = Probability(), MembershipLoss()
    if oracles and observed(probability, original):
        before, retrained = probability.measure(original, []), [probability.measure(o, []) for o in oracles]
        if comparable([before, *retrained]) and interval(gap(before, retrained))[0] <= 0:
            return NOT_IN_MODEL + "its probability under the original is no higher than under the oracle"
    elif observed(attack, original):
        low = attack.measure(original, []).low
        if low is not None and low <= 0.5:
            return NOT_IN_MODEL + "the original scores it no better than the holdout"
    return ""


def observed(audit: Any, seen: Observations) -> bool:
    wants = audit.wants(seen.split)
    return bool(wants) and all(want in seen.scored for want in wants)


def read(
    audit: Any,
    seen: Observations,
    oracles: Sequence[Observations],
    original: Observations | None,
    recognise: bool = True,
) -> Measurement:
    """One measurement with its controls, its position on the axis oracle (0) → original (1), and its verdict."""
    mine = audit.measure(seen, list(oracles))
    retrained = [audit.measure(other, list(oracles)) for other in oracles]
    before = audit.measure(original, list(oracles)) if original else None
    controls = {"oracle": [m.value for m in retrained]} | ({"original": before.value} if before else {})
    judged = dataclasses.replace(mine, controls=controls, note="")
    if recognise and original and seen.artefact == original.artefact:
        judged = dataclasses.replace(judged, verdict="control", note=THE_ORIGINAL)
    elif recognise and seen.artefact in {other.artefact for other in oracles}:
        judged = dataclasses.replace(judged, verdict="control", note=AN_ORACLE)
    elif mine.higher_is in ("better_utility", "harm"):
        judged = dataclasses.replace(judged, verdict="measured")
    else:
        judged = judge(judged, retrained, before)
    return noted(judged, mine.note)


def judge(mine: Measurement, retrained: Sequence[Measurement], before: Measurement | None) -> Measurement:
    """The verdict on a figure of forgetting, as far as its controls bear one."""
    lacking = MAKE_ORACLE if not retrained else MAKE_ORIGINAL if before is None else mine.reason
    if before is None or lacking:
        return dataclasses.replace(mine, verdict="undetermined", note=lacking)
    if any(m.value is None for m in (*retrained, before)):
        return dataclasses.replace(mine, verdict="undetermined", note="a control has no value")
    placed = (quality_verdict if mine.name == "forget_quality" else place)(mine, retrained, before)
    return noted(placed, ONE_ORACLE) if len(retrained) == 1 and placed.verdict in FORGETTING else placed


def quality_verdict(mine: Measurement, retrained: Sequence[Measurement], before: Measurement) -> Measurement:
    """Forget quality is itself a test: the lowest p of an oracle is its noise floor, and its axis tells the side.

    A p-value above the floor clears a model only where the axis does not leave it open how much is known.
    """
    side = place(mine, retrained, before)
    if side.position is None:
        return dataclasses.replace(mine, verdict=side.verdict, note=side.note)
    floor = min(SAME, *(m.value or 0.0 for m in retrained))
    if (before.value or 0.0) > floor:
        return dataclasses.replace(mine, verdict="uninformative", note=BLIND)
    if (mine.value or 0.0) > floor:
        wide = side.note == WIDE
        return dataclasses.replace(
            mine, verdict="undetermined" if wide else "indistinguishable", note=WIDE if wide else ""
        )
    beyond, note = side.position < 0, SATURATED if mine.extra["saturated"] else ""
    return dataclasses.replace(mine, verdict="over-suppressed" if beyond else "under-forgotten", note=note)


def place(mine: Measurement, retrained: Sequence[Measurement], before: Measurement) -> Measurement:
    """Position and verdict by the rule of this module, on the figures' axis where they have one of their own."""
    here, *others = (m.axis or m for m in (mine, before, *retrained))
    start, oracles = others[0], others[1:]
    if not comparable([here, *others]):
        alone = any(m.draws is None for m in (here, *others))
        return dataclasses.replace(mine, verdict="undetermined", note=NO_INTERVAL if alone else MISSING)
    values = np.array([m.value for m in oracles], dtype=np.float64)
    length = (start.value or 0.0) - values.mean()
    floor, sign = (
        np.ptp(values) if len(values) > 1 else STAND_IN * abs(length),
        -1 if here.higher_is == "less_knowledge" else 1,
    )
    span, gaps = gap(start, oracles), gap(here, oracles)
    span_low, span_high = sorted(sign * end for end in interval(span))
    if span_low <= floor:
        return dataclasses.replace(
            mine, verdict="uninformative", note=SWAPPED if span_high < -floor else BLIND
        )
    low, high = sorted(sign * end for end in interval(gaps))
    with np.errstate(divide="ignore", invalid="ignore"):
        nearest, furthest = interval(gaps / span)
    at = ((here.value or 0.0) - values.mean()) / length
    placed = dataclasses.replace(mine, position=float(at), position_low=nearest, position_high=furthest)
    if low > floor or high < -floor:
        return dataclasses.replace(placed, verdict="under-forgotten" if low > floor else "over-suppressed")
    if nearest > -HALFWAY and furthest < HALFWAY:
        return dataclasses.replace(placed, verdict="indistinguishable")
    return dataclasses.replace(placed, verdict="undetermined", note=WIDE)


def comparable(found: Sequence[Measurement]) -> bool:
    """Whether all have draws, over as many examples: a model without a value where the controls have one hides it."""
    return all(m.draws is not None and m.skipped == found[0].skipped for m in found)


def gap(mine: Measurement, retrained: Sequence[Measurement]) -> np.ndarray:
    """float64[DRAWS]: the figure - the oracles' mean, in each draw."""
    return np.asarray(mine.draws) - np.mean([np.asarray(m.draws) for m in retrained], axis=0)
