"""Controls: every figure is read between the original and the retrained oracles, or it gets no verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from unremember.audits.bootstrap import interval
from unremember.audits.measurement import Measurement
from unremember.audits.membership import MembershipLoss
from unremember.audits.probability import Probability
from unremember.audits.protocol import Audit
from unremember.audits.verdicts import (
    FORGETTING,
    WIDE,
    comparable,
    gap_draws,
    verdict_from_controls,
    with_note,
)
from unremember.data.split import Split
from unremember.observe.protocol import ObservationRequest
from unremember.observe.records import Observations
from unremember.registry import audits

UNCHECKED = "utility was not measured: the model may have collapsed"
NOT_IN_MODEL = "the forget set is not in the model: "
THE_ORIGINAL = "these are the original's weights, bit for bit"
AN_ORACLE = "these are an oracle's weights, bit for bit"
_COLLAPSE = 0.5
"""Utility below this share of the original's vetoes every forgetting verdict."""


def default_audits(split: Split) -> list[Audit]:
    """Return the audits that the split names, else all that apply but those with ``default=False``."""
    if split.audits:
        return [audits.make(spec) for spec in split.audits]
    every = [entry.make() for entry in audits.all() if entry.facts.get("default", True)]
    return [audit for audit in every if audit.requests(split)]


def requests_of(chosen: Sequence[Audit], split: Split) -> list[ObservationRequest[Any]]:
    """Return what some audits request, each request once."""
    return list(dict.fromkeys(request for audit in chosen for request in audit.requests(split)))


@dataclasses.dataclass(frozen=True)
class ControlFigures:
    """One audit's figures of the controls."""

    original: Measurement | None
    oracles: list[Measurement]

    @property
    def values(self) -> dict[str, Any]:
        """The values as a measurement holds them."""
        original = {"original": self.original.value} if self.original else {}
        return {"oracle": [oracle.value for oracle in self.oracles], **original}


@dataclasses.dataclass(frozen=True)
class Controls:
    """The original and the oracles of some audits, measured once however many models are read against them.

    Args:
        audits: The audits.
        original: What was observed of the model before forgetting; None where it is unknown.
        oracles: What was observed of the models retrained without the forget set. One that is given twice
            counts once.
    """

    audits: Sequence[Audit]
    original: Observations | None
    oracles: Sequence[Observations]

    @cached_property
    def distinct_oracles(self) -> list[Observations]:
        """The oracles, those of the same weights once."""
        return list({oracle.weights: oracle for oracle in self.oracles}.values())

    @cached_property
    def figures(self) -> list[ControlFigures]:
        """The controls' figures, audit by audit."""
        return [
            ControlFigures(
                audit.measure(self.original, self.distinct_oracles) if self.original else None,
                [audit.measure(oracle, self.distinct_oracles) for oracle in self.distinct_oracles],
            )
            for audit in self.audits
        ]

    @cached_property
    def note(self) -> str:
        """The note of every forgetting figure where the original never held the forget set, else ""."""
        return absence_note(self.original, self.distinct_oracles) if self.original else ""

    def card(self, observations: Observations, recognise: bool = True) -> list[Measurement]:
        """Measure one artefact by all audits, and read each figure against the controls.

        A collapsed model or oracle makes every forgetting verdict *undetermined*. Where the original never
        held the forget set, the note of each forgetting figure says so.

        Args:
            observations: What was observed of the artefact.
            recognise: Whether an artefact with the weights of a control is reported as that control, without
                a verdict. An attack may end at a control's weights, and that is its result.
        """
        measurements = veto(
            [
                self.read(
                    audit.measure(observations, self.distinct_oracles), figures, observations, recognise
                )
                for audit, figures in zip(self.audits, self.figures)
            ]
        )
        return [
            figure if figure.higher_is == "better_utility" else with_note(figure, self.note)
            for figure in measurements
        ]

    def read(
        self, measurement: Measurement, controls: ControlFigures, observations: Observations, recognise: bool
    ) -> Measurement:
        """Return a measurement with controls, position and verdict. The audit's own note comes last."""
        plain = dataclasses.replace(measurement, controls=controls.values, note="")
        control = self.control_note(observations) if recognise else ""
        if control:
            verdict = dataclasses.replace(plain, verdict="control", note=control)
        elif measurement.higher_is in ("better_utility", "harm"):
            verdict = dataclasses.replace(plain, verdict="measured")
        else:
            verdict = verdict_from_controls(plain, controls.oracles, controls.original)
        return with_note(verdict, measurement.note)

    def control_note(self, observations: Observations) -> str:
        """Return which control has the artefact's weights; "" where none has."""
        if self.original and observations.weights == self.original.weights:
            return THE_ORIGINAL
        if observations.weights in {oracle.weights for oracle in self.distinct_oracles}:
            return AN_ORACLE
        return ""


def veto(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the measurements, without forgetting verdicts where a utility is 0 or below half the original's.

    Every figure of what was to be retained is a utility. An oracle whose utility collapsed is no control.
    Where no utility was measured, the note of a model that is cleared says so.
    """
    utilities = [m for m in measurements if m.higher_is == "better_utility" and m.value is not None]
    if not utilities:
        return [with_note(m, UNCHECKED) if m.verdict == "indistinguishable" else m for m in measurements]
    collapses = list(dict.fromkeys(line for utility in utilities for line in collapses_of(utility)))
    if not collapses:
        return list(measurements)
    note = f"{' and '.join(collapses)}: forgetting figures mean nothing"
    return [
        dataclasses.replace(m, verdict="undetermined", note=note)
        if m.verdict in FORGETTING or m.note.startswith(WIDE)
        else m
        for m in measurements
    ]


def collapses_of(utility: Measurement) -> list[str]:
    """Return who lost this utility: the model, an oracle."""
    least = _COLLAPSE * (utility.controls.get("original") or 0.0)
    lowest = {
        "model": utility.value or 0.0,
        "oracle": min((value or 0.0 for value in utility.controls["oracle"]), default=1.0),
    }
    return [
        f"the {name} collapsed (utility {value:.3f})"
        for name, value in lowest.items()
        if value <= 0 or value < least
    ]


def absence_note(original: Observations, oracles: Sequence[Observations]) -> str:
    """Return a note where the original shows no trace of the forget set, else "".

    Oracles decide, where there are any: is the forget probability above theirs? Else the holdout decides: is
    the loss attack better than chance? With neither there is no note.
    """
    probability, attack = Probability(), MembershipLoss()
    if oracles and is_observed(probability, original):
        known = probability.measure(original, [])
        retrained = [probability.measure(oracle, []) for oracle in oracles]
        if comparable([known, *retrained]) and interval(gap_draws(known, retrained))[0] <= 0:
            return NOT_IN_MODEL + "its probability under the original is no higher than under the oracle"
    elif is_observed(attack, original):
        low = attack.measure(original, []).low
        if low is not None and low <= 0.5:
            return NOT_IN_MODEL + "the original scores it no better than the holdout"
    return ""


def is_observed(audit: Audit, observations: Observations) -> bool:
    """Return whether an audit applies and everything that it requests was observed."""
    requests = audit.requests(observations.split)
    return bool(requests) and all(request in observations for request in requests)
