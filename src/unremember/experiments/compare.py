"""Methods in an arena, and the four seams crossed: the cells, their order, and the page they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from unremember.experiments import cells
from unremember.experiments.arenas import ArenaSource, method_settings
from unremember.experiments.cells import CONFIRMATORY, EXPLORATORY, RAW_RATES, Arena, CellPlan
from unremember.experiments.table import (
    SEAM,
    Cells,
    cells_markdown,
    draw_crossing,
    draw_tradeoff,
    spread_text,
)
from unremember.files import write_text
from unremember.registry import methods
from unremember.runs.matched import COMPARED_AUDITS, read_cell
from unremember.runs.workers import one_thread, require_ray, workers

CONTROL = "retain_descent"
"""The control of every method: plain training on the retain set."""
CROSSED_BLENDS = ("sum", "pcgrad", "gu", "hamu", "ofmu")
CROSSED_SAMPLINGS = ("paired", "cyclic", "melu", "guard_attribution")
CROSSED_SELECTIONS = ("all", "lora", "knowledge_neurons")
_LEAD = (
    "Each method runs from the original until the forget set's answers are no more likely than a tenth of "
    "the way from the oracles' level to the original's; figures are then read at *matched forgetting*. Its "
    "learning rate is the best of the arena's on an exploratory seed; the figures are the mean (least … "
    "greatest) of three other seeds. `retain_descent` is the control: plain training on the retain set for "
    "the median number of steps."
)
_GIVEN = (
    "`altpo` is given answers that the original invents, `whp` a model that learned the forget set for ten "
    "more epochs, at a strength of 20."
)

Recipes = Mapping[str, tuple[Any, Mapping[str, Any]]]
"""By name of a row: a method, and the parts in its seams."""
TableRows = list[tuple[str, Cells]]
"""The rows of a table: a name with its cells."""


def methods_experiment(
    names: Sequence[str], source: ArenaSource, out: Path, chosen: Sequence[str] = ()
) -> Path:
    """Compare methods at matched forgetting in some arenas; write the page and return it.

    Args:
        names: The arenas.
        source: Where the arenas come from.
        out: The folder of the page.
        chosen: Only these methods; none named: all of them.
    """
    require_ray()
    recipes = {name: (name, {}) for name in chosen} if chosen else every_method()
    arenas = []
    for name in names:
        arena = source.arena(name)
        settings = method_settings(arena, source.work / arena.name, list(recipes))
        arenas.append(dataclasses.replace(arena, settings=settings))
    parts = tables(arenas, recipes, source.work, out / "methods.md")
    if not chosen:
        draw_spotlights(parts[0][1], out / "spotlight")
    return comparison_page("Methods", f"{_LEAD} {_GIVEN}", parts, out / "methods.md")


def seams_experiment(names: Sequence[str], source: ArenaSource, out: Path, loss: str = "npo") -> Path:
    """Cross one method's loss with every blend, sampling and selection; write the page and return it."""
    require_ray()
    arenas = [source.arena(name) for name in names]
    parts = tables(arenas, crossed_recipes(loss), source.work, out / "seams.md", paired_name)
    lead = (
        f"The loss of `{loss}` with every blend · sampling · selection. {_LEAD} The rate of a blend and "
        "selection is chosen with paired rows."
    )
    return comparison_page(
        "The four seams crossed", lead, parts, out / "seams.md", draw_crossing, margins_markdown
    )


def control_cells(arena: Arena, folder: Path) -> Iterator[tuple[str, Cells]]:
    """Yield the rows of the original and the oracles."""
    for name, artefacts in (("original", (arena.original,)), ("oracle", arena.oracles)):
        figures = [cells.measure_cell(arena, a, COMPARED_AUDITS, folder) for a in artefacts]
        yield name, [{"figures": f, "steps": 0, "rate": 0, "reached": True} for f in figures]


def run_plans(arena: Arena, plans: Sequence[CellPlan], folder: Path, title: str) -> list[Mapping[str, Any]]:
    """Return the cells of all plans in their order; those that are not finished run on all workers."""
    finished = [read_cell(folder / plan.file, f"{arena.digest} {plan.digest}") for plan in plans]
    missing = [plan for plan, cell in zip(plans, finished, strict=True) if cell is None]
    if not missing:
        return [cell for cell in finished if cell]
    with one_thread():
        _ = arena.target  # measured once here, not once in every worker
    results = iter(workers().run(title, cells.run_cell, (arena, folder), missing))
    return [next(results) if cell is None else cell for cell in finished]


def arena_table(
    arena: Arena, recipes: Recipes, folder: Path, leader: Callable[[str], str] = str
) -> TableRows:
    """Return the rows of an arena: the controls, retain descent at equal steps, then each recipe.

    A recipe's rate comes from the exploratory seed, its figures from the confirmatory ones.

    Args:
        leader: Names the recipe whose exploration decides for a recipe: by default itself.
    """
    recipes = {
        name: ({"name": method, **arena.settings[method]} if method in arena.settings else method, seams)
        for name, (method, seams) in recipes.items()
    }
    # 1. The exploratory seed chooses a rate for each recipe that leads.
    leaders = explore(arena, {n: r for n, r in recipes.items() if leader(n) == n}, folder)
    chosen = {name: leaders[leader(name)] for name in recipes}
    # 2. The confirmatory seeds give the figures.
    plans = []
    for name, cell in chosen.items():
        if not cell.get("note", "").startswith("does not run"):
            method, seams = recipes[name]
            plans += [CellPlan(name, method, seed, cell["rate"], seams) for seed in CONFIRMATORY]
    confirmed = run_plans(arena, plans, folder, f"{arena.name}: seeds")
    # 3. The control takes the median number of steps.
    reached = [cell["steps"] for cell in confirmed if cell["reached"]]
    steps = round(median(reached or [arena.limit]))
    controls = [CellPlan(CONTROL, CONTROL, seed, arena.rates[-1], {}, steps) for seed in CONFIRMATORY]
    retain = run_plans(arena, controls, folder, f"{arena.name}: control")
    rows = [(name, [c for c in confirmed if c["name"] == name] or [cell]) for name, cell in chosen.items()]
    return [*control_cells(arena, folder), (CONTROL, retain), *rows]


def explore(arena: Arena, recipes: Recipes, folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the best exploratory cell of each recipe, whose rate is taken."""
    rates = {
        name: RAW_RATES if cells.changes_weights_itself(method, seams) else arena.rates
        for name, (method, seams) in recipes.items()
    }
    plans = []
    for name, some in rates.items():
        if len(some) > 1:
            method, seams = recipes[name]
            plans += [CellPlan(name, method, EXPLORATORY, rate, seams) for rate in some]
    explored = run_plans(arena, plans, folder, f"{arena.name}: rates")
    best: dict[str, Mapping[str, Any]] = {}
    for name, some in rates.items():
        tried = [cell for cell in explored if cell["name"] == name]
        best[name] = cells.best_cell(tried) if tried else {"rate": some[0]}
    return best


def tables(
    arenas: Sequence[Arena],
    recipes: Recipes,
    work: Path,
    page: Path,
    leader: Callable[[str], str] = str,
) -> list[tuple[Arena, TableRows]]:
    """Return the table of every arena.

    While it runs its cells lie in ``work``; afterwards, or when it is stopped, they are kept beside the page.
    """
    parts = []
    for arena in arenas:
        folder, published = work / arena.name / "cells", page.with_suffix(".json")
        cells.restore_cells(arena, folder, published)
        try:
            parts.append((arena, arena_table(arena, recipes, folder, leader)))
        finally:
            cells.publish_cells(arena, folder, published)
    return parts


def every_method() -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Return all registered methods that start from the original and forget."""
    return {name: (name, {}) for name in methods.names() if name not in (CONTROL, "retrain")}


def crossed_recipes(loss: Any) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Return one method's loss with every blend, sampling and selection."""
    recipes: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    for blend in CROSSED_BLENDS:
        for sampling in CROSSED_SAMPLINGS:
            for selection in CROSSED_SELECTIONS:
                name = SEAM.join((blend, sampling, selection))
                recipes[name] = (loss, {"blend": blend, "sampling": sampling, "selection": selection})
    return recipes


def paired_name(name: str) -> str:
    """Return the crossed recipe with the same blend and selection and paired rows: it chooses the rate."""
    blend, _, selection = name.split(SEAM)
    return SEAM.join((blend, CROSSED_SAMPLINGS[0], selection))


def margins_markdown(rows: Sequence[tuple[str, Cells]]) -> str:
    """Return, for every crossed part, how many of its runs reached the target, and their mean figures."""
    lines = [
        "| part | reached the target | model utility | forget quality (log₁₀ p) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for part in (*CROSSED_BLENDS, *CROSSED_SAMPLINGS, *CROSSED_SELECTIONS):
        own = [cell for name, some in rows if part in name.split(SEAM) for cell in some if cell["figures"]]
        reached = [cell for cell in own if cell["reached"]]
        means = [
            spread_text([cells.figure_of_cell(cell, key) for cell in reached], digits)
            for key, digits in (("model_utility", 3), ("forget_quality", 1))
        ]
        lines.append(f"| {part} | {len(reached)} of {len(own)} | {' | '.join(means)} |")
    return "\n".join(lines)


def draw_spotlights(rows: Sequence[tuple[str, Cells]], folder: Path) -> None:
    """Draw a figure for each method: where it stands among the others."""
    for name, some in rows:
        if name not in ("original", "oracle") and any(cell["figures"] for cell in some):
            draw_tradeoff(rows, name, folder / f"{name}.png", spotlight=name)


def comparison_page(
    title: str,
    lead: str,
    parts: Iterable[tuple[Arena, TableRows]],
    file: Path,
    draw: Callable[[Sequence[tuple[str, Cells]], str, Path], None] = draw_tradeoff,
    summary: Callable[[Sequence[tuple[str, Cells]]], str] | None = None,
) -> Path:
    """Write the Markdown page of some tables and return it.

    Args:
        draw: Draws the figure of a table.
        summary: Writes what stands before a table.
    """
    blocks = [f"# {title}", lead]
    for arena, rows in parts:
        name = f"{file.stem}-{arena.name.replace(' ', '-')}.png"
        draw(rows, f"{title}: {arena.name}", file.parent / name)
        blocks += [f"## {arena.name}", arena_facts(arena)]
        if summary:
            blocks.append(summary(rows))
        blocks += [cells_markdown(rows), f"![{arena.name}]({name})"]
    write_text(file, "\n\n".join(blocks) + "\n")
    return file


def arena_facts(arena: Arena) -> str:
    """Say what an arena is: rows, models by the beginning of their weights' hash, and where a run ends."""
    sizes = ", ".join(f"{role} {len(rows)}" for role, rows in arena.split.roles.items())
    oracles = ", ".join(f"`{oracle.weights[:12]}`" for oracle in arena.oracles)
    return (
        f"Rows: {sizes}. Original `{arena.original.weights[:12]}`; oracles {oracles}. "
        f"Batches of {arena.batch_size}; a run ends at the first look (every {arena.every} steps, at most "
        f"{arena.limit}) with a forget probability of {arena.target:.3f} or less."
    )
