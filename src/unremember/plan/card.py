"""The plan of a method on a request, made before any training."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from unremember.data.split import Split
from unremember.engine.blends.hamu import HAMU
from unremember.engine.job import count_rounds
from unremember.engine.recipe import Phases
from unremember.engine.seams import Context, Phase, Seams, Term
from unremember.engine.settings import Run, Settings
from unremember.methods.protocol import Method
from unremember.plan.calibration import ExpectedCost, expected_cost, load_calibration
from unremember.plan.hardness import Hardness, measure_hardness
from unremember.plan.hostile import Finding, examine_request
from unremember.plan.lacks import missing_requirements
from unremember.registry import methods, samplings
from unremember.tasks.artefact import Artefact

_TIMED_STEPS = 3
"""Steps of the timed trial; the first is not counted."""
_TRIAL_RATE = 1.0
"""The learning rate of the trial that measures hardness: that of plain gradient descent, not AdamW's."""
_TRIAL_AMOUNT = 0.5
"""How much each step of that trial must forget."""
_TRIAL_TERMS = Seams((Term("forget", "ascent"), Term("retain", "nll")))


@dataclasses.dataclass(frozen=True)
class PlanCard:
    """A plan.

    Args:
        method: The method's registered name.
        lacks: What must be provided first.
        finding: What the request's texts say.
        hardness: The hardness; None without a retain set.
        expected: What similar requests cost on the generated world; None without a retain set.
        steps: The optimiser steps of the run; 0 if something is missing.
        cost_of_a_step: The forwards and backwards of a step.
        seconds_a_step: The time of a step on this machine; None if something is missing.
        advice: ``go``, ``careful`` or ``stop``.
        reasons: Why.
    """

    method: str
    lacks: tuple[str, ...]
    finding: Finding
    hardness: Hardness | None
    expected: ExpectedCost | None
    steps: int
    cost_of_a_step: str
    seconds_a_step: float | None
    advice: str
    reasons: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """Return the plan as a plain JSON object."""
        seconds = None if self.seconds_a_step is None else round(self.steps * self.seconds_a_step, 1)
        return {
            "method": self.method,
            "advice": self.advice,
            "reasons": list(self.reasons),
            "lacks": list(self.lacks),
            "request": self.finding.row(),
            "hardness": self._hardness_row(),
            "expected_cost": self._expected_row(),
            "steps": self.steps,
            "cost_of_a_step": self.cost_of_a_step,
            "seconds_a_step": self.seconds_a_step,
            "seconds": seconds,
        }

    def _hardness_row(self) -> dict[str, Any] | None:
        if self.hardness is None:
            return None
        return {**dataclasses.asdict(self.hardness), "advice": self.hardness.advice}

    def _expected_row(self) -> dict[str, Any] | None:
        """Return the expected cost with the calibration that it rests on."""
        if self.expected is None:
            return None
        calibration = load_calibration()
        return {
            **dataclasses.asdict(self.expected),
            "world": calibration.arena,
            "requests": calibration.requests,
            "rank_correlation": [calibration.rho, calibration.low, calibration.high],
        }


def plan(artefact: Artefact, split: Split, method: Method, settings: Settings, name: str) -> PlanCard:
    """Examine a request before anything is trained; the artefact is left as it is.

    Args:
        artefact: The model that is to forget.
        split: The request. The role ``stored``, if it exists, holds the training rows that the request is
            matched with.
        method: How it would be forgotten.
        settings: How the method would be run.
        name: The method's registered name.
    """
    lacks = missing_requirements(method, split, artefact.model)
    finding = examine_request(split["forget"], split.roles.get("retain"), split.roles.get("stored"))
    hardness = trial_hardness(artefact, split, settings) if "retain" in split else None
    expected = expected_cost(hardness.cosine, load_calibration()) if hardness else None
    steps, seconds = 0, None
    if not lacks:
        steps = _count_steps(method, split, settings, artefact)
        seconds = _seconds_a_step(method, split, settings, artefact)
    cost = str(methods.entry(name).facts.get("cost", "–"))
    advice, reasons = _advice(lacks, finding, hardness)
    return PlanCard(name, lacks, finding, hardness, expected, steps, cost, seconds, advice, reasons)


def trial_hardness(artefact: Artefact, split: Split, settings: Settings) -> Hardness:
    """Measure hardness as HAMU does (arXiv 2606.02119), over a trial on a copy of the model."""
    settings = dataclasses.replace(settings, lr=_TRIAL_RATE)
    blend = HAMU(amount=_TRIAL_AMOUNT)
    return measure_hardness(artefact.model, artefact.task, split, _TRIAL_TERMS, settings, blend=blend)


def _count_steps(method: Method, split: Split, settings: Settings, artefact: Artefact) -> int:
    """Count the optimiser steps of a run."""
    rows = method.derived(split)
    phases = method.phases if isinstance(method, Phases) else [Phase(recipe) for recipe in method.recipes]
    rounds = method.rounds if isinstance(method, Phases) else 1
    if rounds is None:
        rounds = count_rounds(artefact.model, artefact.task, rows, phases[0], settings)
    steps = 0
    for phase in phases:
        roles = phase.recipe.roles
        keys = {role: rows[role].keys for role in roles}
        context = Context(
            artefact.model, artefact.task, rows, roles, keys, settings.batch_size, settings.seed
        )
        per_epoch = samplings.make(phase.recipe.sampling).steps_per_epoch(context)
        steps += rounds * phase.steps(settings.max_steps or per_epoch * settings.epochs, per_epoch)
    return steps


def _seconds_a_step(method: Method, split: Split, settings: Settings, artefact: Artefact) -> float:
    """Time a step on this machine, from a few steps on a copy; NaN for a method that takes no steps."""
    stamps: list[float] = []

    def stamp(model: Any, step: int) -> None:
        stamps.append(time.perf_counter())

    run = Run(dataclasses.replace(settings, max_steps=_TIMED_STEPS), watch=stamp, every=1, quiet=True)
    method.run(artefact.copy(), split, run)
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1) if len(stamps) > 1 else math.nan


def _advice(
    lacks: tuple[str, ...], finding: Finding, hardness: Hardness | None
) -> tuple[str, tuple[str, ...]]:
    """Return (advice, reasons): the strictest advice that any part of the plan gives.

    A request that looks hostile is never refused: the stored text is forgotten in its place.
    """
    reasons = [f"missing: {lack}" for lack in lacks] + list(finding.reasons)
    advice = ["stop"] if lacks else []
    if finding.verdict in ("suspicious", "watch"):
        advice.append("careful")
    if hardness is None:
        advice.append("careful")
        reasons.append(
            "no retain set: hardness cannot be measured, and nothing preserves the rest of the model"
        )
    else:
        advice.append(hardness.advice)
        reasons.append(
            f"over {hardness.steps} trial steps, the gradients of the retain and the forget loss have a "
            f"cosine of {hardness.cosine:.2f}; damage is unavoidable in {hardness.damaged:.0%} of the blocks"
        )
    return max(advice, key=["go", "careful", "stop"].index), tuple(reasons)
