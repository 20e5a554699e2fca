"""The protocol of a method: one-shot forgetting, from an artefact to the artefact that forgot."""

from __future__ import annotations

from typing import Any, Protocol, Self

from unremember.data.split import Split
from unremember.engine.seams import Seams
from unremember.engine.settings import Run
from unremember.tasks.artefact import Artefact


class Method(Protocol):
    """One-shot forgetting.

    ``Recipe`` (the four seams of a gradient method) and ``Phases`` are methods; so is anything else that
    runs, such as arithmetic on the weights. ``run`` may change ``start.model`` in place: whoever calls it
    gives it a copy to work on.

    Attributes:
        recipes: The gradient methods that it runs, none for a method that is not descent. A plan counts their
            steps and checks what they read.
    """

    @property
    def recipes(self) -> tuple[Seams, ...]: ...

    def derived(self, split: Split) -> Split:
        """Return the split with what the method reads and the data lack."""
        ...

    def run(self, start: Artefact, split: Split, run: Run) -> Artefact:
        """Forget ``split["forget"]``.

        With ``run.folder`` a stopped run carries on there, to the same weights bit for bit.
        """
        ...

    def override(self, **parts: Any) -> Self:
        """Return the method with other parts in some seams.

        Raises:
            ConfigError: The method owns or lacks a seam for which a part is given.
        """
        ...
