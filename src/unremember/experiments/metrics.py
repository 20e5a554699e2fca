"""Faithfulness and robustness of every metric, over pools of small models and over unlearned ones.

After OpenUnlearning (arXiv 2506.12618, section 4). The pools are in ``pools.py``, the formulas in ``meta.py``, what is
made of the figures in ``metrics_table.py``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib

from unremember import api
from unremember.audits.attacks import Attack, Attacked, Subject
from unremember.audits.attacks.quantisation import Quantisation
from unremember.audits.attacks.relearning import Relearning
from unremember.audits.measurement import Measurement
from unremember.data.split import Split
from unremember.errors import Collapsed, UnrememberError
from unremember.experiments import cells, pools
from unremember.experiments.cells import Arena, Plan
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.registry import audits

METHODS = ("gradient_difference", "npo", "simnpo", "rmu", "gu", "klue")
"""What makes the unlearned models, with every rate of the arena."""
UTILITY = 0.8
"""An unlearned model counts where it keeps this share of the original's utility."""
RELEARN_RATE, BATCH, BITS = 1e-3, 16, 4
"""Relearning is one epoch of the forget set; quantisation rounds to so many bits."""
STATES = ("relearned", "quantised")
TOPS = {"privleak": 0.0}
"""What a figure that falls with knowledge is taken from, so that 0 is no knowledge: 1 where nothing else is said."""
RANDOM = "random"
"""The control: a number that knows nothing of the model."""


def knowledge(split: Split) -> Split:
    """The split as far as metrics of forget knowledge read it."""
    return dataclasses.replace(
        split,
        roles={role: split[role] for role in ("forget", "holdout") if role in split},
        utility=(),
        audits=(),
    )


def applicable(split: Split) -> list[Any]:
    """Every registered audit that needs no argument and finds what it wants in the split."""
    empty = inspect.Parameter.empty
    made = [entry.make() for entry in audits.all() if empty not in entry.parameters().values()]
    return [audit for audit in made if audit.wants(split)]


def oriented(found: Measurement) -> float | None:
    """The figure, turned so that higher = more forget knowledge and 0 = none where its scale has such a point.

    A p-value of being like the oracle counts as -log10 p.
    """
    if found.value is None or not math.isfinite(found.value):
        return None
    if "log10_p" in found.extra:
        return -float(found.extra["log10_p"])
    return TOPS.get(found.name, 1.0) - found.value if found.higher_is == "less_knowledge" else found.value


def random_figure(name: str) -> float:
    """A number in [0, 1) that hangs on the name alone: the same on every machine."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


def figures(name: str, seen: Observations, references: Sequence[Observations]) -> dict[str, float | None]:
    """Every metric of one model, oriented; a metric's axis, where it has one of its own, is a metric too."""
    found = [audit.measure(seen, list(references)) for audit in applicable(seen.split)]
    found += [m.axis for m in found if m.axis]
    return {m.name: oriented(m) for m in found if m.higher_is not in ("better_utility", "harm")} | {
        RANDOM: random_figure(name)
    }


def observe(arena: Arena, model: Any, home: Path, split: Split | None = None) -> Observations:
    """What the metrics want of a model, kept in its folder."""
    split = split or knowledge(arena.split)
    wants = list(dict.fromkeys(want for audit in applicable(split) for want in audit.wants(split)))
    return Store(home / "observations").observe(model, arena.original.task, split, wants, quiet=True)


def basis(arena: Arena, references: Sequence[Observations]) -> str:
    """What decides the figures of a model beside its weights: the data, the metrics, the references."""
    split = knowledge(arena.split)
    return hashlib.sha256(
        f"{split.digest} {applicable(split)} {[seen.artefact for seen in references]}".encode()
    ).hexdigest()[:16]


def of_member(arena: Arena, home: Path, references: Sequence[Observations]) -> dict[str, Any]:
    """The figures of a model of a pool."""
    find = lambda: {"figures": figures(home.name, observe(arena, pools.model(home), home), references)}  # noqa: E731
    return pools.once(home / "figures.json", f"{pools.digest(home)} {basis(arena, references)}", find)


def attacks_on(split: Split) -> tuple[Relearning, Quantisation]:
    """One epoch of the forget set; rounding."""
    steps = math.ceil(len(split["forget"]) / BATCH)
    return Relearning(share=1.0, steps=steps, looks=1, lr=RELEARN_RATE, batch_size=BATCH), Quantisation(
        (BITS,)
    )


def pushed(
    arena: Arena, model: Any, home: Path, references: Sequence[Observations]
) -> dict[str, Mapping[str, float | None]]:
    """The figures of a model before the attacks and at the end of each one's budget."""
    split = knowledge(arena.split)
    found: dict[str, Mapping[str, float | None]] = {
        "before": figures(f"{home.name} before", observe(arena, model, home), references)
    }
    attacks: Mapping[str, Attack] = dict(zip(STATES, attacks_on(split)))
    for state, attack in attacks.items():

        def look(at: Attacked, state: str = state) -> None:
            found[state] = figures(
                f"{home.name} {state}", observe(arena, at.model, home, at.split), references
            )

        attack.run(Subject(model, arena.original.task, split, arena.original.model), look)
    return found


def utility(arena: Arena, result: api.Result, home: Path) -> float:
    (found,) = api.audit(
        result, arena.split, audits=["model_utility"], store=home / "observations", quiet=True
    )
    return found.value or 0.0


def of_oracle(arena: Arena, number: int, references: Sequence[Observations], home: Path) -> dict[str, Any]:
    """A retrained model under the same attacks."""
    identity = f"{arena.digest} {number} {attacks_on(arena.split)} {basis(arena, references)}"
    return pools.once(
        home / "figures.json", identity, lambda: pushed(arena, arena.oracles[number].model, home, references)
    )


def of_unlearned(
    arena: Arena, plan: Plan, references: Sequence[Observations], least: float, folder: Path
) -> dict[str, Any]:
    """An unlearned model at matched forgetting, attacked where it has ``least`` utility; a run that fails is a recorded result."""
    home = folder / plan.file.removesuffix(".json")

    def find() -> dict[str, Any]:
        found: dict[str, Any] = {"method": plan.name}
        try:
            made = cells.forgotten(arena, plan, found)
            found["utility"] = utility(arena, made, home)
            found["counts"] = found["reached"] and found["utility"] >= least
            return found | (pushed(arena, made.model, home, references) if found["counts"] else {})
        except Collapsed as error:
            return found | {"counts": False, "note": f"collapsed: {error}"}
        except UnrememberError as error:
            return found | {"counts": False, "note": f"does not run here: {error}"}

    return pools.once(
        home / "figures.json",
        f"{arena.digest} {plan.digest} {attacks_on(arena.split)} {least} {basis(arena, references)}",
        find,
    )


@dataclasses.dataclass(frozen=True)
class Found:
    """All figures: of the pools, of every unlearned model, and of the arena's oracles under the same attacks."""

    knowing: Sequence[Mapping[str, Any]]
    ignorant: Sequence[Mapping[str, Any]]
    unlearned: Sequence[Mapping[str, Any]]
    retrained: Sequence[Mapping[str, Any]]

    @property
    def counted(self) -> list[Mapping[str, Any]]:
        return [one for one in self.unlearned if one["counts"]]


def measure(arena: Arena, models: int, folder: Path, methods: Iterable[str] = METHODS) -> Found:
    """Make and measure both pools and the unlearned models, one process a core; what is there already is read.

    The arena's oracles and the pool's models that never saw the forget set in any form are the references of the metrics that need one.
    """
    homes = pools.make(arena, models, folder / "pools")
    retained = [home for member, home in homes.items() if member.form == "retained"]
    references = [
        observe(arena, oracle.model, folder / f"oracle {i}") for i, oracle in enumerate(arena.oracles)
    ]
    references += [observe(arena, pools.model(home), home) for home in retained]
    least = UTILITY * utility(arena, arena.original, folder / "original")
    plans = [Plan(method, method, 0, rate) for method in methods for rate in arena.rates]
    pooled = cells.on_all_cores(
        "figures", [joblib.delayed(of_member)(arena, home, references) for home in homes.values()]
    )
    retrained = [
        joblib.delayed(of_oracle)(arena, i, references, folder / f"oracle {i}")
        for i in range(len(arena.oracles))
    ]
    forgot = [
        joblib.delayed(of_unlearned)(arena, plan, references, least, folder / "unlearned") for plan in plans
    ]
    done = cells.on_all_cores("attacks", [*retrained, *forgot])
    knowing, ignorant = (
        [one for one, member in zip(pooled, homes) if member.knows == side] for side in (True, False)
    )
    return Found(knowing, ignorant, done[len(retrained) :], done[: len(retrained)])
