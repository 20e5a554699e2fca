"""What is known before any training: what a method lacks, how hard the request is, whether it is hostile, what it costs."""

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
from unremember.plan import calibration
from unremember.plan.calibration import Expected
from unremember.plan.hardness import Hardness, hardness
from unremember.plan.hostile import Finding, hostile_request
from unremember.plan.lacks import lacking
from unremember.registry import methods, samplings
from unremember.tasks.artefact import Artefact

TRIAL = 3
"""Steps that are timed, the first of which is not counted."""
DESCENT, AMOUNT = 1.0, 0.5
"""Learning rate of the trial that measures hardness (plain gradient descent's, not AdamW's), and how much each step must forget."""
PLAIN = Seams((Term("forget", "ascent"), Term("retain", "nll")))


@dataclasses.dataclass(frozen=True)
class Card:
    """A plan. ``lacks`` names what must be there first; ``hardness`` and the ``expected`` cost (what like requests
    cost on the generated world) are None where there is no retain set; ``steps`` of ``cost_of_a_step``, ``seconds_a_step`` on this machine.
    ``advice``: ``go``, ``careful`` or ``stop``, with its ``reasons``."""

    method: str
    lacks: tuple[str, ...]
    finding: Finding
    hardness: Hardness | None
    expected: Expected | None
    steps: int
    cost_of_a_step: str
    seconds_a_step: float | None
    advice: str
    reasons: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """The plan as a plain JSON object."""
        hard = dataclasses.asdict(self.hardness) | {"advice": self.hardness.advice} if self.hardness else None
        known = calibration.load()
        rank = {
            "world": known.arena,
            "requests": known.requests,
            "rank_correlation": [known.rho, known.low, known.high],
        }
        cost = dataclasses.asdict(self.expected) | rank if self.expected else None
        seconds = None if self.seconds_a_step is None else round(self.steps * self.seconds_a_step, 1)
        return {
            "method": self.method,
            "advice": self.advice,
            "reasons": list(self.reasons),
            "lacks": list(self.lacks),
            "request": self.finding.row(),
            "hardness": hard,
            "expected_cost": cost,
            "steps": self.steps,
            "cost_of_a_step": self.cost_of_a_step,
            "seconds_a_step": self.seconds_a_step,
            "seconds": seconds,
        }


def plan(artefact: Artefact, split: Split, method: Method, settings: Settings, name: str) -> Card:
    """Look at a request before anything is trained; the artefact is left as it is.

    Args:
        artefact: The model that is to forget.
        split: The request. ``split["stored"]``, where it exists, holds the training rows that the request is matched to.
        method: How it would be forgotten.
        settings: How the method would be run.
        name: The method's registered name.
    """
    lacks = lacking(method, split, artefact.model)
    finding = hostile_request(split["forget"], split.roles.get("retain"), split.roles.get("stored"))
    hard = difficulty(artefact, split, settings) if "retain" in split else None
    cost = calibration.expected(hard.cosine, calibration.load()) if hard else None
    steps, seconds = 0, None
    if not lacks:
        steps = step_count(method, split, settings, artefact)
        seconds = seconds_a_step(method, split, settings, artefact)
    a_step = str(methods.entry(name).facts.get("cost", "–"))
    return Card(name, lacks, finding, hard, cost, steps, a_step, seconds, *recommended(lacks, finding, hard))


def difficulty(artefact: Artefact, split: Split, settings: Settings) -> Hardness:
    """Measure hardness as HAMU does, over a trial on a copy of the model."""
    settings = dataclasses.replace(settings, lr=DESCENT)
    return hardness(artefact.model, artefact.task, split, PLAIN, settings, blend=HAMU(amount=AMOUNT))


def step_count(method: Method, split: Split, settings: Settings, artefact: Artefact) -> int:
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


def seconds_a_step(method: Method, split: Split, settings: Settings, artefact: Artefact) -> float:
    """Time a step on this machine, from a few steps on a copy."""
    stamps: list[float] = []

    def stamp(model: Any, step: int) -> None:
        stamps.append(time.perf_counter())

    run = Run(dataclasses.replace(settings, max_steps=TRIAL), watch=stamp, every=1, quiet=True)
    method.run(artefact.copy(), split, run)
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1) if len(stamps) > 1 else math.nan


def recommended(
    lacks: tuple[str, ...], finding: Finding, hard: Hardness | None
) -> tuple[str, tuple[str, ...]]:
    """(advice, reasons): the strictest of what was found. A hostile look is never a refusal: the stored text is forgotten."""
    reasons = [f"missing: {what}" for what in lacks] + list(finding.reasons)
    levels = ["stop"] if lacks else []
    if finding.verdict in ("suspicious", "watch"):
        levels.append("careful")
    if hard is None:
        reasons.append(
            "no retain set: how hard it is cannot be measured, and nothing holds the rest of the model"
        )
        levels.append("careful")
    else:
        levels.append(hard.advice)
        reasons.append(
            f"over {hard.steps} trial steps the kept and the forgotten gradients stand at a cosine of {hard.cosine:.2f}; "
            f"{hard.damaged:.0%} of the weight blocks cannot avoid damage"
        )
    return max(levels, key=["go", "careful", "stop"].index), tuple(reasons)
