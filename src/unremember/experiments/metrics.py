"""Faithfulness and robustness of every metric, over pools of small models and over unlearned ones.

After OpenUnlearning (arXiv 2506.12618, section 4). The pools are in ``pools.py``, the formulas in
``meta.py``, the table and the page in ``metrics_table.py``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember import api
from unremember.audits.attacks import Attack, AttackPoint, Subject
from unremember.audits.attacks.quantisation import Quantisation
from unremember.audits.attacks.relearning import Relearning
from unremember.audits.controls import requests_of
from unremember.audits.measurement import Measurement
from unremember.data.split import Split
from unremember.errors import Collapsed, UnrememberError
from unremember.experiments import cells, pools
from unremember.experiments.cells import Arena, CellPlan
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.registry import audits
from unremember.runs.workers import one_thread, workers
from unremember.tasks.artefact import Artefact

UNLEARNING_METHODS = ("gradient_difference", "npo", "simnpo", "rmu", "gu", "klue")
"""The methods of the unlearned models, each with every rate of the arena."""
KEPT_UTILITY = 0.8
"""An unlearned model counts where it keeps this share of the original's utility."""
RELEARN_RATE, QUANTISED_BITS = 1e-3, 4
"""Relearning is one epoch of the forget set at this learning rate; quantisation rounds to so many bits."""
ATTACKED_STATES = ("relearned", "quantised")
"""The states of a model after the attacks."""
RANDOM = "random"
"""The control: a number that knows nothing of the model."""
_BATCH = 16
_NO_KNOWLEDGE = {"privleak": 0.0}
"""The value, without knowledge, of a figure that falls with it; 1 for any metric that is not listed."""


def knowledge_split(split: Split) -> Split:
    """Return the part of a split that metrics of forget knowledge read."""
    roles = {role: split[role] for role in ("forget", "holdout") if role in split}
    return dataclasses.replace(split, roles=roles, utility=(), audits=())


def applicable_audits(split: Split) -> list[Any]:
    """Build every registered audit that needs no argument and finds what it measures in the split."""
    empty = inspect.Parameter.empty
    built = [entry.make() for entry in audits.all() if empty not in entry.parameters().values()]
    return [audit for audit in built if audit.requests(split)]


def oriented_value(measurement: Measurement) -> float | None:
    """Return a figure turned so that higher is more forget knowledge, and 0 none if the scale has a 0.

    A p-value of being like the oracle counts as -log10 p.
    """
    value = measurement.value
    if value is None or not math.isfinite(value):
        return None
    if "log10_p" in measurement.extra:
        return -float(measurement.extra["log10_p"])
    if measurement.higher_is == "less_knowledge":
        return _NO_KNOWLEDGE.get(measurement.name, 1.0) - value
    return value


def random_figure(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone: the same on every machine."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


def metric_values(
    name: str, observations: Observations, references: Sequence[Observations]
) -> dict[str, float | None]:
    """Return every metric of one model, oriented; the axis of a metric that has its own is a metric too.

    Args:
        name: The name of the model.
        references: What was observed of models that never saw the forget set.
    """
    measured = [
        audit.measure(observations, list(references)) for audit in applicable_audits(observations.split)
    ]
    measured += [m.axis for m in measured if m.axis]
    values = {m.name: oriented_value(m) for m in measured if m.higher_is not in ("better_utility", "harm")}
    return {**values, RANDOM: random_figure(name)}


def observe_for_metrics(artefact: Artefact, split: Split, home: Path) -> Observations:
    """Observe what the metrics read of a model, kept in its folder."""
    requests = requests_of(applicable_audits(split), split)
    return Store(home / "observations").observe(artefact, split, requests, quiet=True)


def references_digest(arena: Arena, references: Sequence[Observations]) -> str:
    """Hash what decides a model's figures beside its weights: data, metrics, references (16 hex digits)."""
    split = knowledge_split(arena.split)
    artefacts = [reference.artefact for reference in references]
    text = f"{split.digest} {applicable_audits(split)} {artefacts}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class MetricsTask:
    """What the jobs of the experiment share.

    Args:
        references: What was observed of models that never saw the forget set.
        least: The utility from which an unlearned model counts.
        folder: The folder of all models.
    """

    arena: Arena
    references: Sequence[Observations]
    least: float
    folder: Path

    @property
    def identity(self) -> str:
        """What decides the figures of a model beside its weights."""
        return references_digest(self.arena, self.references)

    @property
    def attacked_identity(self) -> str:
        """The same for a model under attack."""
        return f"{relearning_and_quantisation(self.arena.split)} {self.identity}"


def measure_member(shared: MetricsTask, home: Path) -> dict[str, Any]:
    """Return the metrics of a pool's model."""

    def measure() -> dict[str, Any]:
        split = knowledge_split(shared.arena.split)
        observations = observe_for_metrics(pools.member_artefact(home), split, home)
        return {"figures": metric_values(home.name, observations, shared.references)}

    return pools.measured_once(
        home / "figures.json", f"{pools.member_digest(home)} {shared.identity}", measure
    )


def relearning_and_quantisation(split: Split) -> tuple[Relearning, Quantisation]:
    """Return the attacks: one epoch of the forget set; rounding."""
    steps = math.ceil(len(split["forget"]) / _BATCH)
    relearning = Relearning(share=1.0, steps=steps, points=1, lr=RELEARN_RATE, batch_size=_BATCH)
    return relearning, Quantisation((QUANTISED_BITS,))


def attacked_values(
    shared: MetricsTask, artefact: Artefact, home: Path
) -> dict[str, Mapping[str, float | None]]:
    """Return the metrics of a model before the attacks, and at the end of each attack's budget."""
    split, references = knowledge_split(shared.arena.split), shared.references
    before = observe_for_metrics(artefact, split, home)
    values: dict[str, Mapping[str, float | None]] = {
        "before": metric_values(f"{home.name} before", before, references)
    }
    attacks: Sequence[Attack] = relearning_and_quantisation(split)
    for state, attack in zip(ATTACKED_STATES, attacks, strict=True):

        def evaluate(point: AttackPoint, state: str = state) -> None:
            observations = observe_for_metrics(point.artefact, point.split, home)
            values[state] = metric_values(f"{home.name} {state}", observations, references)

        attack.run(Subject(artefact, split, shared.arena.original), evaluate)
    return values


def utility_of(arena: Arena, artefact: Artefact, home: Path) -> float:
    """Return the model utility of an artefact."""
    store = home / "observations"
    (utility,) = api.audit(artefact, arena.split, audits=["model_utility"], store=store, quiet=True)
    return utility.value or 0.0


def measure_attacked(shared: MetricsTask, target: int | CellPlan) -> dict[str, Any]:
    """Return the metrics under attack of an oracle, by its number, or of the model of a plan."""
    if isinstance(target, CellPlan):
        return measure_unlearned(shared, target)
    home, arena = shared.folder / f"oracle {target}", shared.arena
    return pools.measured_once(
        home / "figures.json",
        f"{arena.digest} {target} {shared.attacked_identity}",
        lambda: attacked_values(shared, arena.oracles[target], home),
    )


def measure_unlearned(shared: MetricsTask, plan: CellPlan) -> dict[str, Any]:
    """Unlearn a model to matched forgetting and attack it where it keeps enough utility.

    A run that fails is a recorded result.
    """
    arena, least = shared.arena, shared.least
    home = shared.folder / "unlearned" / plan.file.removesuffix(".json")

    def measure() -> dict[str, Any]:
        result: dict[str, Any] = {"method": plan.name}
        try:
            artefact = cells.run_to_target(arena, plan, result)
            result["utility"] = utility_of(arena, artefact, home)
            result["counts"] = result["reached"] and result["utility"] >= least
            return result | (attacked_values(shared, artefact, home) if result["counts"] else {})
        except Collapsed as error:
            return result | {"counts": False, "note": f"collapsed: {error}"}
        except UnrememberError as error:
            return result | {"counts": False, "note": f"does not run here: {error}"}

    identity = f"{arena.digest} {plan.digest} {least} {shared.attacked_identity}"
    return pools.measured_once(home / "figures.json", identity, measure)


@dataclasses.dataclass(frozen=True)
class MetricFigures:
    """All metrics: of the pools' models, of the unlearned models, and of the oracles under attack."""

    knowing: Sequence[Mapping[str, Any]]
    ignorant: Sequence[Mapping[str, Any]]
    unlearned: Sequence[Mapping[str, Any]]
    retrained: Sequence[Mapping[str, Any]]

    @property
    def counted(self) -> list[Mapping[str, Any]]:
        """The unlearned models that count."""
        return [model for model in self.unlearned if model["counts"]]


def measure_metrics(
    arena: Arena, models: int, folder: Path, methods: Iterable[str] = UNLEARNING_METHODS
) -> MetricFigures:
    """Make and measure both pools and the unlearned models on all workers; what is finished is read.

    The references of the metrics that need one are the arena's oracles and the pool's models that never saw
    the forget set in any form.

    Args:
        models: The models of each pool.
    """
    homes = pools.train_pools(arena, models, folder / "pools")
    split = knowledge_split(arena.split)
    with one_thread():
        references = [
            observe_for_metrics(oracle, split, folder / f"oracle {i}")
            for i, oracle in enumerate(arena.oracles)
        ]
        retained = [home for member, home in homes.items() if member.form == "retained"]
        references += [observe_for_metrics(pools.member_artefact(home), split, home) for home in retained]
        least = KEPT_UTILITY * utility_of(arena, arena.original, folder / "original")
    shared = MetricsTask(arena, references, least, folder)
    pooled = workers().run("figures", measure_member, shared, list(homes.values()))
    plans = [CellPlan(method, method, 0, rate) for method in methods for rate in arena.rates]
    oracles = list(range(len(arena.oracles)))
    attacked = workers().run("attacks", measure_attacked, shared, [*oracles, *plans])
    knowing, ignorant = (
        [figures for figures, member in zip(pooled, homes, strict=True) if member.knows == side]
        for side in (True, False)
    )
    return MetricFigures(knowing, ignorant, attacked[len(oracles) :], attacked[: len(oracles)])
