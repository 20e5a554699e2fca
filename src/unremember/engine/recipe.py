"""The gradient methods: a recipe picks one part of each seam; phases run recipes in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from unremember.data.split import Split
from unremember.engine.seams import Phase, Seams
from unremember.engine.settings import Run
from unremember.errors import ConfigError
from unremember.tasks.artefact import Artefact

SEAMS = ("blend", "sampling", "selection", "optimizer", "schedule")
"""The seams whose part can be replaced; ``retain_loss`` replaces the losses of the retain terms."""


@dataclasses.dataclass(frozen=True)
class Recipe(Seams):
    """A gradient method: terms, and one choice in each other seam.

    It is the method that most papers describe.
    """

    @property
    def recipes(self) -> tuple[Seams, ...]:
        """The gradient methods that a run is made of."""
        return (self,)

    def run(self, start: Artefact, split: Split, run: Run) -> Artefact:
        """Train ``start.model``, which is changed in place, and return the artefact that comes of it."""
        from unremember.engine import loop  # torch is slow to import, and lists of methods do without it

        model = loop.run_recipe(
            start.model,
            start.task,
            self.derived(split),
            self,
            run.settings,
            run.folder,
            run.watch,
            run.every,
            run.quiet,
        )
        return Artefact(model, start.task, start.guard)

    def override(self, **parts: Any) -> Self:
        """Return the recipe with other parts in some seams.

        Args:
            parts: By name of the seam (``blend``, ``sampling``, ``selection``, ``optimizer``, ``schedule``)
                or ``retain_loss``: a name, a mapping or a built part. None leaves the seam as it is.

        Raises:
            ConfigError: The method owns the seam, or has no retain term whose loss could be replaced.
        """
        changes = {seam: part for seam, part in parts.items() if part is not None}
        for seam in changes:
            if seam in self.owns:
                raise ConfigError(
                    f"{seam} is what makes this method what it is and cannot be replaced: set its parameters "
                    f"as method.…, or choose a method that leaves the {seam} open, such as npo"
                )
        loss = changes.pop("retain_loss", None)
        if loss is not None:
            if "retain" not in self.roles:
                raise ConfigError(
                    "retain_loss names the loss of a retain term, and this method has none: leave it out"
                )
            changes["terms"] = tuple(
                dataclasses.replace(term, loss=loss) if term.role == "retain" else term for term in self.terms
            )
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Phases:
    """Several gradient methods in turn, ``rounds`` times over.

    All of them read the same original as reference.

    With ``rounds=None`` there are as many as the first phase needs to take the steps of the settings. Each
    phase keeps its own optimiser from round to round; with one step a phase they alternate.
    """

    phases: tuple[Phase, ...]
    rounds: int | None = 1

    @property
    def recipes(self) -> tuple[Seams, ...]:
        """The gradient methods that a run is made of."""
        return tuple(phase.recipe for phase in self.phases)

    def derived(self, split: Split) -> Split:
        """Return the split with what the terms of any phase read and the data lack."""
        for recipe in self.recipes:
            split = recipe.derived(split)
        return split

    def run(self, start: Artefact, split: Split, run: Run) -> Artefact:
        """Train ``start.model``, which is changed in place, and return the artefact that comes of it."""
        from unremember.engine import loop  # torch is slow to import, and lists of methods do without it

        model = loop.run_phases(
            start.model,
            start.task,
            self.derived(split),
            self.phases,
            self.rounds,
            run.settings,
            run.folder,
            run.watch,
            run.every,
            run.quiet,
        )
        return Artefact(model, start.task, start.guard)

    def override(self, **parts: Mapping[str, Any] | None) -> Phases:
        """Raise ConfigError for any part that is given: phases have parts of their own."""
        refuse_overrides("a method of several phases names its parts phase by phase", parts)
        return self


def refuse_overrides(why: str, parts: Mapping[str, Any]) -> None:
    """Raise ConfigError naming the first seam for which a part is given."""
    for seam, part in parts.items():
        if part is not None:
            raise ConfigError(
                f"{seam} cannot be replaced here: {why}; leave it out, or choose a method such as npo"
            )
