"""The Python face: forget, train and audit in three lines."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember.audits import controls
from unremember.audits.attacks import Attacked, Subject
from unremember.audits.measurement import Measurement
from unremember.data.split import Role, Split, identity, make_split
from unremember.data.text import Template
from unremember.engine import loop
from unremember.engine.language import Language
from unremember.engine.progress import Progress
from unremember.engine.seams import Recipe, Term
from unremember.engine.settings import Settings
from unremember.errors import ConfigError, DataError
from unremember.models.digest import weights_digest
from unremember.observe.records import Seen
from unremember.observe.store import Store
from unremember.plan.lacks import lacking
from unremember.registry import attacks, methods
from unremember.registry import audits as audit_registry


@dataclasses.dataclass(frozen=True)
class Result:
    """A model after a run, with what is needed to observe it: ``model``, ``task``, and the digest of its weights."""

    model: Any
    task: Language
    digest: str


def learned(split: Split, without: Sequence[str] = (), only: Sequence[str] = ()) -> Split:
    """The split with a role ``train``: forget, retain and the utility roles (or ``only`` some roles), each row once.

    ``without=("forget",)`` makes the training data of the retrained oracle, ``only=("forget",)`` those of the model that
    knows the forget set better still. Raises DataError for a role that is not there, and where nothing is left.
    """
    for role in (*without, *only):
        split[role]
    rows = {
        identity(row): row
        for role in only or ("forget", "retain", *split.utility)
        if role in split and role not in without
        for row in split[role].rows
    }
    if not rows:
        raise DataError(f"nothing to train on: without {', '.join(without)} there are no rows in {split.name}")
    return dataclasses.replace(split, roles={**split.roles, "train": Role("train", list(rows.values()))})


def task_for(model: Any, tokenizer: Any, template: Template | None = None) -> Language:
    """The language task of a model: its tokenizer, a prompt template, its context length."""
    context = getattr(model.config, "max_position_embeddings", None)
    return Language(tokenizer, template or Template(), context)


def recipe_of(method: Any, blend: Any = None, sampling: Any = None, selection: Any = None, retain: Any = None) -> Recipe:
    """The recipe a method makes, with the seams that are given in place of its own; ``retain`` is the loss of its retain terms."""
    recipe = method if isinstance(method, Recipe) else methods.make(method)
    if retain is not None:
        if "retain" not in recipe.roles:
            raise ConfigError("retain names the loss of a retain term, and this method has none")
        terms = tuple(dataclasses.replace(term, loss=retain) if term.role == "retain" else term for term in recipe.terms)
        recipe = dataclasses.replace(recipe, terms=terms)
    given = {"blend": blend, "sampling": sampling, "selection": selection}
    return dataclasses.replace(recipe, **{seam: part for seam, part in given.items() if part is not None})


def check_needs(recipe: Recipe, split: Split, model: Any) -> None:
    """Raise DataError before any training where something that the recipe's parts need is not there, with how to make it."""
    if lacks := lacking(recipe, split, model):
        raise DataError(f"the method needs what {split.name} lacks: {'; '.join(lacks)}")


def forget(model: Any, split: Mapping[str, Any] | Split, method: Any = "npo", *, tokenizer: Any, blend: Any = None,
           sampling: Any = None, selection: Any = None, retain: Any = None, template: Template | None = None,
           folder: Path | None = None, watch: loop.Watch | None = None, every: int = 0, quiet: bool = False, **settings: Any) -> Result:  # fmt: skip
    """Forget ``split["forget"]`` from ``model`` (changed in place).

    ``method`` is a registered name, ``{"name": …, parameters}`` or a Recipe; ``settings`` are the fields of
    :class:`~unremember.engine.settings.Settings`. With ``folder`` the run resumes. ``watch(model, step)`` is called after
    ``every`` steps (0: every epoch) and ends the run by returning True. Raises DataError, ConfigError, Collapsed.
    """
    recipe = recipe_of(method, blend, sampling, selection, retain)
    made = recipe.derive(make_split(split)) if recipe.derive else make_split(split)
    check_needs(recipe, made, model)
    task = task_for(model, tokenizer, template)
    done = loop.train(model, task, made, recipe, Settings(**settings), folder, watch, every, quiet)
    return Result(done, task, weights_digest(done))


def train(model: Any, split: Mapping[str, Any] | Split, *, tokenizer: Any, without: Sequence[str] = (), only: Sequence[str] = (),
          template: Template | None = None, folder: Path | None = None, quiet: bool = False, **settings: Any) -> Result:  # fmt: skip
    """Train ``model`` on everything in the split, ``without=("forget",)`` for the retrained oracle, or on ``only`` some roles."""
    made = learned(make_split(split), without, only)
    task = task_for(model, tokenizer, template)
    recipe = Recipe(terms=(Term("train", "nll"),))
    done = loop.train(model, task, made, recipe, Settings(**settings), folder, quiet=quiet)
    return Result(done, task, weights_digest(done))


def audit(result: Result, split: Mapping[str, Any] | Split, *, oracle: Result | Sequence[Result] = (),
          original: Result | None = None, audits: Sequence[Any] = (), store: Path | None = None,
          quiet: bool = False) -> list[Measurement]:  # fmt: skip
    """Measure ``result`` beside its controls: every applicable audit, or the named ones.

    Without an oracle every forgetting figure reads *undetermined*. Observations are kept in ``store`` by digest.
    """
    made = make_split(split)
    chosen = [audit_registry.make(a) for a in audits] or controls.default_audits(made)
    wants = list(dict.fromkeys(want for a in chosen for want in a.wants(made)))
    if not wants:
        raise ConfigError(f"no audit applies to {made.name}: it has the roles {', '.join(made.roles)}")
    observations = Store(store)
    oracles = several(oracle)
    look = lambda r: observations.observe(r.model, r.task, made, wants, quiet=quiet)  # noqa: E731
    first = look(original) if original else None
    return controls.card(chosen, look(result), [look(o) for o in oracles], first)


ATTACKED = ("probability", "extraction_strength")
"""What an attack measures where nothing is named: one scoring pass over the forget answers."""


@dataclasses.dataclass(frozen=True)
class Point:
    """What an attack recovers at one point of its budget: every measurement beside the controls attacked alike."""

    amount: float
    measurements: list[Measurement]


def attack(result: Result, split: Mapping[str, Any] | Split, attack: Any, *, oracle: Result | Sequence[Result] = (),
           original: Result | None = None, audits: Sequence[Any] = ATTACKED,
           store: Path | None = None, quiet: bool = False) -> list[Point]:  # fmt: skip
    """The curve of an attack: audits of ``result``, oracles and original, all attacked the same way, none of them touched.

    A measurement's ``position`` is the recovered share: 0 where the attack brings out no more than it does of the
    oracle, 1 where it brings out what it does of the original.
    """
    made, attacker, observations = make_split(split), attacks.make(attack), Store(store)
    chosen = [audit_registry.make(a) for a in audits]

    def curve(one: Result) -> list[tuple[float, Seen]]:
        found: list[tuple[float, Seen]] = []

        def look(at: Attacked) -> None:
            wants = list(dict.fromkeys(want for a in chosen for want in a.wants(at.split)))
            found.append((at.amount, observations.observe(at.model, at.task, at.split, wants, quiet=True)))

        attacker.run(Subject(one.model, one.task, made, original.model if original else one.model), look)
        return found

    named = [result, *several(oracle), *([original] if original else [])]
    curves = []
    with Progress("attacking", len(named), quiet=quiet) as progress:
        for one in named:
            curves.append(curve(one))
            progress.advance(1, 0)
    points = []
    for (amount, mine), *rest in zip(*curves, strict=True):
        others = [seen for _, seen in rest]
        retrained, first = (others[:-1], others[-1]) if original else (others, None)
        points.append(Point(amount, controls.card(chosen, mine, retrained, first, recognise=result.digest in {one.digest for one in named[1:]})))
    return points


def several(oracle: Result | Sequence[Result]) -> list[Result]:
    """Oracles as a list, however many were given."""
    return [oracle] if isinstance(oracle, Result) else list(oracle)


def versions() -> dict[str, str]:
    """What made a run's numbers: interpreter and libraries."""
    import torch
    import transformers

    import unremember

    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
            "unremember": unremember.__version__}  # fmt: skip
