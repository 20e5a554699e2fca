"""A cell of a comparison: one method, run from the original to matched forgetting."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unremember import api
from unremember.data.split import Split
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Seams
from unremember.errors import Collapsed, UnrememberError
from unremember.files import write_text
from unremember.models.digest import weight_files_digest
from unremember.models.load import resolve_model_folder
from unremember.registry import blends, losses, samplings, selections
from unremember.runs.matched import (
    COMPARED_AUDITS,
    REMAINING,
    answer_probability,
    matched_target,
    read_cell,
    write_cell,
)
from unremember.tasks.artefact import Artefact

RAW_RATES = (0.03, 0.1, 0.3, 1.0)
"""Rates that the exploratory seed tries where a blend changes the weights itself; else the arena's."""
EXPLORATORY = 100
"""The seed that chooses the learning rate."""
CONFIRMATORY = (0, 1, 2)
"""The seeds of the figures."""
_TEXT_LOSS = "nll"
"""What stands for a term without a loss in a cell's identity: the training loss of language models."""


@dataclasses.dataclass(frozen=True)
class Arena:
    """Where methods meet: a split, the original, the oracles, and the fixed settings of the loop.

    Args:
        limit: The most steps that a run may take.
        every: Steps between two evaluations of the forget set.
        rates: The learning rates that the exploratory seed tries.
        settings: The parameters of a method in this arena, by its name.
    """

    name: str
    split: Split
    original: Artefact
    oracles: tuple[Artefact, ...]
    batch_size: int
    limit: int
    every: int
    rates: tuple[float, ...]
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Hash what all cells of the arena share (16 hex digits)."""
        parts = [
            self.split.digest,
            self.original.weights,
            *[oracle.weights for oracle in self.oracles],
            f"{self.batch_size} {self.limit} {self.every} {REMAINING}",
        ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def target(self) -> float:
        """The forget probability at which a run ends."""
        original = answer_probability(self.original, self.split)
        return matched_target(original, [answer_probability(oracle, self.split) for oracle in self.oracles])


@dataclasses.dataclass(frozen=True)
class CellPlan:
    """One run of a method.

    Args:
        name: The name of the row in the table.
        method: The method, by name or with parameters.
        seams: Other parts in its seams, by name of the seam.
        steps: Ends the run there instead of at the target; 0: at the target.
    """

    name: str
    method: Any
    seed: int
    rate: float
    seams: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 0

    @property
    def file(self) -> str:
        """The name of the cell's file."""
        return f"{self.name} seed {self.seed} rate {self.rate:g}.json"

    @cached_property
    def digest(self) -> str:
        """Hash the parts of the run, their parameters, and the files that it reads (16 hex digits)."""
        method = api.method_of(self.method, **self.seams)
        texts = [recipe_text(recipe) for recipe in method.recipes]
        if not isinstance(method, Recipe):
            texts.insert(0, f"{method} ")
        files = "".join(files_digest(recipe) for recipe in method.recipes)
        text = f"{' '.join(texts)} {self.seed} {self.rate} {self.steps}{files}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def recipe_text(recipe: Seams) -> str:
    """Return the built parts of a gradient method as text, all parameters included."""
    terms = [(term.role, losses.make(term.loss or _TEXT_LOSS), term.weight) for term in recipe.terms]
    seams = blends.make(recipe.blend), samplings.make(recipe.sampling), selections.make(recipe.selection)
    return f"{terms} {seams}"


def files_digest(recipe: Seams) -> str:
    """Hash the files that a gradient method reads (invented answers, frozen models); "" without any."""
    needs = [need for term in recipe.terms if term.loss for need in losses.make(term.loss).reference_needs]
    frozen = [weight_files_digest(resolve_model_folder(need.of)) for need in needs if need.of]
    return getattr(recipe.derive, "digest", "") + "".join(frozen)


def audits_of(plan: CellPlan, reached: bool) -> Sequence[str]:
    """Return the audits of a run: an exploratory one is measured only for what ``best_cell`` reads."""
    if plan.seed == EXPLORATORY:
        return ("model_utility",) if reached else ()
    return COMPARED_AUDITS


def changes_weights_itself(method: Any, seams: Mapping[str, Any]) -> bool:
    """Return whether a method's blend changes the weights itself, so that its rate is not AdamW's."""
    return any(bool(blends.make(recipe.blend).raw) for recipe in api.method_of(method, **seams).recipes)


def run_to_target(arena: Arena, plan: CellPlan, progress: dict[str, Any]) -> Artefact:
    """Return the original after the plan's run.

    Args:
        progress: Filled with what the last evaluation measured: ``steps``, ``level``, and whether the target
            was ``reached``.
    """
    task = arena.original.task
    progress |= {"steps": 0, "level": None, "reached": False}

    def evaluate(model: Any, step: int) -> bool:
        level = answer_probability(Artefact(model, task), arena.split)
        progress.update(steps=step, level=level, reached=level <= arena.target)
        return level <= arena.target and not plan.steps

    artefact = api.forget(
        arena.original,
        arena.split,
        plan.method,
        watch=evaluate,
        every=plan.steps or arena.every,
        quiet=True,
        seed=plan.seed,
        lr=plan.rate,
        schedule="constant",
        warmup=0.0,
        batch_size=arena.batch_size,
        max_steps=plan.steps or arena.limit,
        **plan.seams,
    )
    if not (progress["reached"] or plan.steps):
        # A method may change the weights once more at its end, after the last evaluation.
        evaluate(artefact.model, progress["steps"])
    return artefact


def restore_cells(arena: Arena, folder: Path, page: Path) -> None:
    """Put the published cells of an arena into its work folder: another machine carries on from them.

    Args:
        page: The JSON file beside the page.
    """
    cells = json.loads(page.read_text(encoding="utf-8")).get(arena.name, {}) if page.exists() else {}
    for name, cell in cells.items():
        if not (folder / name).exists() and cell["identity"].startswith(arena.digest):
            write_cell(folder / name, cell)


def publish_cells(arena: Arena, folder: Path, page: Path) -> None:
    """Keep the arena's finished cells in the JSON file beside the page, with those of other arenas."""
    published = json.loads(page.read_text(encoding="utf-8")) if page.exists() else {}
    files = sorted(folder.glob("* seed * rate *.json"))
    cells = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
    own = {name: cell for name, cell in cells.items() if cell["identity"].startswith(arena.digest)}
    published[arena.name] = own
    write_text(page, json.dumps(published, indent=0) + "\n")


def run_cell(shared: tuple[Arena, Path], plan: CellPlan) -> dict[str, Any]:
    """Return the cell of a plan: read from the folder where it is finished, else run, measured and written.

    What a run cannot do (a role is missing, it collapses) is a recorded result.

    Args:
        shared: The arena, and the folder of its cells.
    """
    arena, folder = shared
    path, identity = folder / plan.file, f"{arena.digest} {plan.digest}"
    if finished := read_cell(path, identity):
        return finished
    cell: dict[str, Any] = {
        "identity": identity,
        "name": plan.name,
        "seed": plan.seed,
        "rate": plan.rate,
        "arena": arena.name,
        "figures": {},
    }
    began = time.monotonic()
    try:
        artefact = run_to_target(arena, plan, cell)
        cell["digest"] = artefact.weights
        if audits := audits_of(plan, cell["reached"]):
            cell["figures"] = measure_cell(arena, artefact, audits, folder)
    except Collapsed as error:
        cell["note"] = f"collapsed: {error}"
    except UnrememberError as error:
        cell["note"] = f"does not run here: {error}"
    cell["seconds"] = round(time.monotonic() - began, 1)
    write_cell(path, cell)
    return cell


def measure_cell(
    arena: Arena, artefact: Artefact, audits: Sequence[str], folder: Path
) -> dict[str, dict[str, Any]]:
    """Return the measurements of an artefact beside the arena's controls, as rows by name."""
    measurements = api.audit(
        artefact,
        arena.split,
        oracle=arena.oracles,
        original=arena.original,
        audits=audits,
        store=folder / "observations",
        quiet=True,
    )
    return {m.name: m.row() for m in measurements}


def figure_of_cell(cell: Mapping[str, Any], name: str) -> float | None:
    """Return one figure of a cell: log10 p of the forget quality, else the value."""
    row = cell["figures"].get(name, {})
    return row.get("extra", {}).get("log10_p") if name == "forget_quality" else row.get("value")


def best_cell(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the exploratory cell whose rate is taken.

    Of those that reached the target it is the most useful one; where none did, the most forgetful one.
    """

    def utility(cell: Mapping[str, Any]) -> float:
        return figure_of_cell(cell, "model_utility") or 0.0

    def level(cell: Mapping[str, Any]) -> float:
        return 1.0 if cell["level"] is None else cell["level"]

    reached = [c for c in cells if c["reached"] and figure_of_cell(c, "model_utility") is not None]
    return max(reached, key=utility) if reached else min(cells, key=level)
