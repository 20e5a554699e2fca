"""Methods on an arena, and the four seams crossed: which cells there are, in which order, and what page they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import joblib

from unremember import api
from unremember.experiments import cells
from unremember.experiments.cells import CONFIRMATORY, EXPLORATORY, KEPT, RAW_RATES, Arena, Plan
from unremember.experiments.table import SEAM, Cells, markdown, spread, tradeoff
from unremember.files import write_text
from unremember.registry import methods

CONTROL = "retain_descent"
BLENDS, SAMPLINGS, SELECTIONS = (
    ("sum", "pcgrad", "gu", "hamu", "ofmu"),
    ("paired", "cyclic", "melu", "guard_attribution"),
    ("all", "lora", "knowledge_neurons"),
)


def controls(arena: Arena, folder: Path) -> Iterator[tuple[str, Cells]]:
    """The original and the oracles as cells."""
    for name, results in (("original", (arena.original,)), ("oracle", arena.oracles)):
        cards = [
            api.audit(
                r,
                arena.split,
                oracle=arena.oracles,
                original=arena.original,
                audits=KEPT,
                store=folder / "observations",
                quiet=True,
            )
            for r in results
        ]
        yield (
            name,
            [
                {"figures": {m.name: m.row() for m in card}, "steps": 0, "rate": 0, "reached": True}
                for card in cards
            ],
        )


def run_all(arena: Arena, plans: Sequence[Plan], folder: Path, title: str) -> list[Mapping[str, Any]]:
    """The cells of all plans, one process a core; what is there already is read."""
    return cells.on_all_cores(title, [joblib.delayed(cells.run)(arena, plan, folder) for plan in plans])


def table(
    arena: Arena,
    recipes: Mapping[str, tuple[Any, Mapping[str, Any]]],
    folder: Path,
    leader: Callable[[str], str] = str,
) -> list[tuple[str, Cells]]:
    """Each recipe: its rate from the exploratory seed, its figures from the confirmatory ones, and the control at equal steps.

    ``leader`` names the recipe whose exploration decides for another: by default its own.
    """
    recipes = {
        name: ({"name": method, **arena.settings[method]} if method in arena.settings else method, seams)
        for name, (method, seams) in recipes.items()
    }
    rates = {
        name: RAW_RATES if cells.is_raw(method, seams) else arena.rates
        for name, (method, seams) in recipes.items()
        if leader(name) == name
    }
    tried = [
        Plan(name, recipes[name][0], EXPLORATORY, rate, recipes[name][1])
        for name, some in rates.items()
        if len(some) > 1
        for rate in some
    ]
    explored = run_all(arena, tried, folder, f"{arena.name}: rates")
    leaders: dict[str, Mapping[str, Any]] = {
        name: cells.best([cell for cell in explored if cell["name"] == name])
        if len(some) > 1
        else {"rate": some[0]}
        for name, some in rates.items()
    }
    chosen = {name: leaders[leader(name)] for name in recipes}
    plans = [
        Plan(name, recipes[name][0], seed, cell["rate"], recipes[name][1])
        for name, cell in chosen.items()
        for seed in CONFIRMATORY
        if not cell.get("note", "").startswith("does not run")
    ]
    confirmed = run_all(arena, plans, folder, f"{arena.name}: seeds")
    steps = round(median([cell["steps"] for cell in confirmed if cell["reached"]] or [arena.limit]))
    retain = run_all(
        arena,
        [Plan(CONTROL, CONTROL, seed, arena.rates[-1], {}, steps) for seed in CONFIRMATORY],
        folder,
        f"{arena.name}: control",
    )
    rows = [(name, [c for c in confirmed if c["name"] == name] or [cell]) for name, cell in chosen.items()]
    return [*controls(arena, folder), (CONTROL, retain), *rows]


def tables(
    arenas: Sequence[Arena],
    recipes: Mapping[str, tuple[Any, Mapping[str, Any]]],
    work: Path,
    page: Path,
    leader: Callable[[str], str] = str,
) -> list[tuple[Arena, list[tuple[str, Cells]]]]:
    """The table of every arena. The cells lie in ``work`` while it runs and beside the page for good, also when it is stopped."""
    parts = []
    for arena in arenas:
        folder, kept = work / arena.name / "cells", page.with_suffix(".json")
        cells.restore(arena, folder, kept)
        try:
            parts.append((arena, table(arena, recipes, folder, leader)))
        finally:
            cells.publish(arena, folder, kept)
    return parts


def every_method() -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """All registered methods that start from the original and forget."""
    return {e.name: (e.name, {}) for e in methods.all() if not e.facts.get("fresh") and e.name != CONTROL}


def crossed(loss: Any) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """One loss with every blend, sampling and selection."""
    return {
        SEAM.join((b, s, w)): (loss, {"blend": b, "sampling": s, "selection": w})
        for b in BLENDS
        for s in SAMPLINGS
        for w in SELECTIONS
    }


def paired(name: str) -> str:
    """The cell of the cross with the same blend and selection whose rows are paired: it chooses the rate for all samplings."""
    blend, _, selection = name.split(SEAM)
    return SEAM.join((blend, SAMPLINGS[0], selection))


def margins(rows: Sequence[tuple[str, Cells]]) -> str:
    """For every part of the cross: how many of its runs reached the target, and their mean utility, in its own cells."""
    lines = [
        "| part | reached the target | model utility | forget quality (log₁₀ p) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for seam in (BLENDS, SAMPLINGS, SELECTIONS):
        for part in seam:
            mine = [
                cell for name, some in rows if part in name.split(SEAM) for cell in some if cell["figures"]
            ]
            there = [cell for cell in mine if cell["reached"]]
            means = [
                spread([cells.figure(cell, key) for cell in there], digits)
                for key, digits in (("model_utility", 3), ("forget_quality", 1))
            ]
            lines.append(f"| {part} | {len(there)} of {len(mine)} | {' | '.join(means)} |")
    return "\n".join(lines)


def spotlights(rows: Sequence[tuple[str, Cells]], folder: Path) -> None:
    """A figure a method: where it stands among the others."""
    for name, some in rows:
        if name not in ("original", "oracle") and any(cell["figures"] for cell in some):
            tradeoff(rows, name, folder / f"{name}.png", spotlight=name)


def page(
    title: str,
    lead: str,
    parts: Iterable[tuple[Arena, list[tuple[str, Cells]]]],
    file: Path,
    draw: Callable[[Sequence[tuple[str, Cells]], str, Path], None] = tradeoff,
    more: Callable[[Sequence[tuple[str, Cells]]], str] | None = None,
) -> Path:
    """Write the Markdown page of some tables, what ``draw`` makes of each beside it, and what ``more`` says of its rows."""
    out = [f"# {title}", lead]
    for arena, rows in parts:
        name = f"{file.stem}-{arena.name.replace(' ', '-')}.png"
        draw(rows, f"{title}: {arena.name}", file.parent / name)
        out += [
            f"## {arena.name}",
            facts(arena),
            *([more(rows)] if more else []),
            markdown(rows),
            f"![{arena.name}]({name})",
        ]
    write_text(file, "\n\n".join(out) + "\n")
    return file


def facts(arena: Arena) -> str:
    sizes = ", ".join(f"{role} {len(rows)}" for role, rows in arena.split.roles.items())
    return (
        f"Rows: {sizes}. Original `{arena.original.digest[:12]}`; oracles {', '.join(f'`{o.digest[:12]}`' for o in arena.oracles)}. "
        f"Batches of {arena.batch_size}; a run ends at the first look (every {arena.every} steps, at most {arena.limit}) with a forget "
        f"probability of {arena.target:.3f} or less."
    )
