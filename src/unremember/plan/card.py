"""What is known before any training: what a method lacks, how hard the request is, whether it is hostile, what it costs."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from typing import Any

from unremember.data.split import Split
from unremember.engine import loop
from unremember.engine.blends.hamu import HAMU, Hardness, hardness
from unremember.engine.seams import Context, Recipe, Task, Term
from unremember.engine.settings import Settings
from unremember.plan import calibration
from unremember.plan.calibration import Expected
from unremember.plan.hostile import Finding, hostile_request
from unremember.plan.lacks import lacking
from unremember.registry import methods, samplings

TRIAL = 3
"""Steps that are timed, the first of which is not counted."""
DESCENT, AMOUNT = 1.0, 0.5
"""Learning rate of the trial that measures hardness (plain gradient descent's, not AdamW's), and how much each step must forget."""
PLAIN = Recipe((Term("forget", "ascent"), Term("retain", "nll")))


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
        rank = {"world": known.arena, "requests": known.requests, "rank_correlation": [known.rho, known.low, known.high]}
        cost = dataclasses.asdict(self.expected) | rank if self.expected else None
        seconds = None if self.seconds_a_step is None else round(self.steps * self.seconds_a_step, 1)
        return {"method": self.method, "advice": self.advice, "reasons": list(self.reasons), "lacks": list(self.lacks), "request": self.finding.row(),
                "hardness": hard, "expected_cost": cost, "steps": self.steps, "cost_of_a_step": self.cost_of_a_step,
                "seconds_a_step": self.seconds_a_step, "seconds": seconds}  # fmt: skip


def plan(model: Any, task: Task, split: Split, recipe: Recipe, settings: Settings, method: str) -> Card:
    """Look at a request before anything is trained; ``model`` is left as it is.

    ``split["stored"]``, where it is there, holds the training rows that the request is matched to.
    """
    made = recipe.derive(split) if recipe.derive else split
    lacks = lacking(recipe, made, model)
    finding = hostile_request(split["forget"], split.roles.get("retain"), split.roles.get("stored"))
    hard = difficulty(model, task, split, settings) if "retain" in split else None
    cost = calibration.expected(hard.cosine, calibration.load()) if hard else None
    steps, seconds = 0, None
    if not lacks:
        steps, seconds = total(recipe, made, settings, model, task), timed(model, task, made, recipe, settings)
    a_step = str(methods.entry(method).facts.get("cost", "–"))
    return Card(method, lacks, finding, hard, cost, steps, a_step, seconds, *recommended(lacks, finding, hard))


def difficulty(model: Any, task: Task, split: Split, settings: Settings) -> Hardness:
    """HAMU's measure over a trial on a copy of the model."""
    return hardness(model, task, split, PLAIN, dataclasses.replace(settings, lr=DESCENT), blend=HAMU(amount=AMOUNT))


def total(recipe: Recipe, split: Split, settings: Settings, model: Any, task: Task) -> int:
    """Optimiser steps of the run."""
    keys = {role: split[role].keys for role in recipe.roles}
    context = Context(model, task, split, recipe.roles, keys, settings.batch_size, settings.seed)
    return settings.max_steps or samplings.make(recipe.sampling).steps_per_epoch(context) * settings.epochs


def timed(model: Any, task: Task, split: Split, recipe: Recipe, settings: Settings) -> float:
    """Seconds of a step on this machine, from a few steps on a copy."""
    stamps: list[float] = []
    loop.train(copy.deepcopy(model), task, split, recipe, dataclasses.replace(settings, max_steps=TRIAL), None,
               lambda _, step: stamps.append(time.perf_counter()), 1, quiet=True)  # fmt: skip
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1) if len(stamps) > 1 else math.nan


def recommended(lacks: tuple[str, ...], finding: Finding, hard: Hardness | None) -> tuple[str, tuple[str, ...]]:
    """(advice, reasons): the strictest of what was found. A hostile look is never a refusal: the stored text is forgotten."""
    reasons = [f"missing: {what}" for what in lacks] + list(finding.reasons)
    levels = ["stop"] if lacks else []
    if finding.verdict in ("suspicious", "watch"):
        levels.append("careful")
    if hard is None:
        reasons.append("no retain set: how hard it is cannot be measured, and nothing holds the rest of the model")
        levels.append("careful")
    else:
        levels.append(hard.advice)
        reasons.append(f"over {hard.steps} trial steps the kept and the forgotten gradients stand at a cosine of {hard.cosine:.2f}; "
                       f"{hard.damaged:.0%} of the weight blocks cannot avoid damage")  # fmt: skip
    return max(levels, key=["go", "careful", "stop"].index), tuple(reasons)
