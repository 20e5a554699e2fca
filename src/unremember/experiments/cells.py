"""A cell of a comparison: one recipe, run from the original until it has forgotten as much as every other."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import joblib
import torch

from unremember import api
from unremember.data.split import Split
from unremember.errors import Collapsed, UnrememberError, plain_warnings
from unremember.files import write_text
from unremember.models.digest import weights_in
from unremember.models.load import model_in, quiet
from unremember.observe.records import Want
from unremember.observe.store import Store
from unremember.progress import Progress
from unremember.registry import blends, losses, samplings, selections
from unremember.tasks.language import LanguageTask

LEFT = 0.1
"""Methods are compared once this share of the way from the oracle's forget probability to the original's is left."""
RAW_RATES = (0.03, 0.1, 0.3, 1.0)
"""Learning rates that the exploratory seed tries where a blend changes the weights itself; through AdamW an arena says."""
EXPLORATORY, CONFIRMATORY = 100, (0, 1, 2)
KEPT = ("forget_quality", "model_utility", "probability", "extraction_strength", "membership_loss")


@dataclasses.dataclass(frozen=True)
class Arena:
    """Where methods meet: a split, the original, the oracles, and the loop's fixed settings.

    ``limit`` is the most steps a run may take, ``every`` the steps between two looks at the forget set, ``rates`` the
    learning rates that the exploratory seed tries, ``settings`` what a method is given here, by its name.
    """

    name: str
    split: Split
    original: api.Result
    oracles: tuple[api.Result, ...]
    batch_size: int
    limit: int
    every: int
    rates: tuple[float, ...]
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        parts = [
            self.split.digest,
            self.original.digest,
            *[o.digest for o in self.oracles],
            f"{self.batch_size} {self.limit} {self.every} {LEFT}",
        ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def target(self) -> float:
        """The forget probability at which a run ends."""
        start = level(self.original.model, self.original.task, self.split)
        return at_matched(start, [level(o.model, o.task, self.split) for o in self.oracles])


@dataclasses.dataclass(frozen=True)
class Plan:
    """One run: a method with what stands in its seams, a seed, a rate; ``steps`` ends it there instead of at the target."""

    name: str
    method: Any
    seed: int
    rate: float
    seams: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 0

    @property
    def file(self) -> str:
        return f"{self.name} seed {self.seed} rate {self.rate:g}.json"

    @cached_property
    def digest(self) -> str:
        """Of everything that the run is made of, the defaults of its parts and the files that it reads included."""
        recipe = api.recipe_of(self.method, **self.seams)
        terms = [(term.role, losses.make(term.loss), term.weight) for term in recipe.terms]
        seams = blends.make(recipe.blend), samplings.make(recipe.sampling), selections.make(recipe.selection)
        others = [
            weights_in(model_in(need.of)) for _, loss, _ in terms for need in loss.reference_needs if need.of
        ]
        read = getattr(recipe.derive, "digest", "") + "".join(others)
        return hashlib.sha256(
            f"{terms} {seams} {self.seed} {self.rate} {self.steps}{read}".encode()
        ).hexdigest()[:16]


def at_matched(original: float, oracles: Sequence[float]) -> float:
    """The forget probability of matched forgetting, from the original's and the oracles'."""
    end = sum(oracles) / len(oracles)
    return end + LEFT * (original - end)


def level(model: Any, task: LanguageTask, split: Split, role: str = "forget") -> float:
    """Mean per-token probability of a role's answers."""
    seen = Store().observe(model, task, split, [Want("scores", role)], quiet=True)
    return float(api.audit_registry.make({"name": "probability", "role": role}).measure(seen, []).value)


def measured(plan: Plan, reached: bool) -> Sequence[str]:
    """The audits of a run: an exploratory one is read only for what `best` asks of it."""
    if plan.seed == EXPLORATORY:
        return ("model_utility",) if reached else ()
    return KEPT


def kept(path: Path, identity: str) -> dict[str, Any] | None:
    """What was measured before under this identity."""
    if not path.exists():
        return None
    there = dict(json.loads(path.read_text(encoding="utf-8")))
    return there if there["identity"] == identity else None


def plainly(job: Callable[..., Any], given: Sequence[Any], more: Mapping[str, Any]) -> Any:
    """What a job returns, in a process whose warnings are the command's."""
    plain_warnings()
    return job(*given, **more)


def on_all_cores(title: str, jobs: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The results of ``joblib.delayed`` jobs, one process a core, in order."""
    found: list[Mapping[str, Any]] = []
    with Progress(title, len(jobs)) as progress:
        for one in joblib.Parallel(n_jobs=-1, return_as="generator")(
            joblib.delayed(plainly)(*job) for job in jobs
        ):
            found.append(one)
            progress.advance(1, 0, str(one.get("name", "")))
    return found


def is_raw(method: Any, seams: Mapping[str, Any]) -> bool:
    """Whether the recipe's blend changes the weights itself: its rate is not AdamW's."""
    return bool(blends.make(api.recipe_of(method, **seams).blend).raw)


def forgotten(arena: Arena, plan: Plan, seen: dict[str, Any]) -> api.Result:
    """The original after the plan's run; ``seen`` holds what the last look found: ``steps``, ``level``, and whether it ``reached`` the target."""
    task = arena.original.task
    seen |= {"steps": 0, "level": None, "reached": False}

    def look(model: Any, step: int) -> bool:
        found = level(model, task, arena.split)
        seen.update(steps=step, level=found, reached=found <= arena.target)
        return found <= arena.target and not plan.steps

    made = api.forget(
        copy.deepcopy(arena.original.model),
        arena.split,
        plan.method,
        tokenizer=task.tokenizer,
        template=task.template,
        watch=look,
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
    if not (
        seen["reached"] or plan.steps
    ):  # a method may turn the weights round at its end, where no look was
        look(made.model, seen["steps"])
    return made


def restore(arena: Arena, folder: Path, page: Path) -> None:
    """Put the cells behind an earlier page (``page``, JSON) into ``folder``, where a run finds them: another machine goes on from there."""
    there = json.loads(page.read_text(encoding="utf-8")).get(arena.name, {}) if page.exists() else {}
    for name, cell in there.items():
        if not (folder / name).exists() and cell["identity"].startswith(arena.digest):
            write_text(folder / name, json.dumps(cell, indent=1))


def publish(arena: Arena, folder: Path, page: Path) -> None:
    """Keep the arena's finished cells in ``page``, beside those of other arenas."""
    there = json.loads(page.read_text(encoding="utf-8")) if page.exists() else {}
    done = {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("* seed * rate *.json"))
    }
    there[arena.name] = {
        name: cell for name, cell in done.items() if cell["identity"].startswith(arena.digest)
    }
    write_text(page, json.dumps(there, indent=0) + "\n")


def run(arena: Arena, plan: Plan, folder: Path) -> dict[str, Any]:
    """The cell of a plan: read from ``folder`` where it is there, else run, measured and written.

    What a run cannot do (a role that is missing, a collapse) is a recorded result.
    """
    path, identity = folder / plan.file, f"{arena.digest} {plan.digest}"
    if there := kept(path, identity):
        return there
    quiet()
    torch.set_num_threads(1)
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
        made = forgotten(arena, plan, cell)
        cell["digest"] = made.digest
        if wanted := measured(plan, cell["reached"]):
            card = api.audit(
                made,
                arena.split,
                oracle=arena.oracles,
                original=arena.original,
                audits=wanted,
                store=folder / "observations",
                quiet=True,
            )
            cell["figures"] = {m.name: m.row() for m in card}
    except Collapsed as error:
        cell["note"] = f"collapsed: {error}"
    except UnrememberError as error:
        cell["note"] = f"does not run here: {error}"
    cell["seconds"] = round(time.monotonic() - began, 1)
    write_text(path, json.dumps(cell, indent=1))
    return cell


def figure(cell: Mapping[str, Any], name: str) -> float | None:
    """One figure of a cell: log10 p of the forget quality, else the value."""
    found = cell["figures"].get(name, {})
    return found.get("extra", {}).get("log10_p") if name == "forget_quality" else found.get("value")


def best(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The exploratory cell whose rate is taken: of those that reached the target the most useful, else the most forgetful."""
    there = [cell for cell in cells if cell["reached"] and figure(cell, "model_utility") is not None]
    if there:
        return max(there, key=lambda cell: figure(cell, "model_utility") or 0.0)
    return min(cells, key=lambda cell: 1.0 if cell["level"] is None else cell["level"])
