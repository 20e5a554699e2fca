"""Task vector negation: learn the forget set by heart, then subtract that step from the original."""

from __future__ import annotations

import dataclasses
from typing import Any

from unremember.data.split import Split
from unremember.engine.recipe import Recipe, refuse_overrides
from unremember.engine.seams import Term
from unremember.engine.settings import Run
from unremember.registry import methods
from unremember.tasks.artefact import Artefact


@methods.register(
    "task_vector",
    paper="Editing Models with Task Arithmetic",
    arxiv="2212.04089",
    needs=("forget",),
    taxonomy="local.arithmetic",
    fidelity="code",
    cost="1 forward, 1 backward",
)
@dataclasses.dataclass(frozen=True)
class TaskVector:
    """Overfit a copy to the forget set, then subtract ``scale`` × what it learned from the original.

    How much is forgotten depends on the steps and on ``scale``. While it runs the model is the learner, so it
    cannot be stopped at a level of forgetting.

    Args:
        scale: How many times the task vector is subtracted; below 0 it is added.
        selection: The weights that learn (``all``, ``lora`` …).
    """

    scale: float = 1.0
    selection: Any = "all"

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Plain training on the forget set."""
        return (Recipe(terms=(Term("forget"),), selection=self.selection),)

    def derived(self, split: Split) -> Split:
        """The data are enough as they are."""
        return split

    def run(self, start: Artefact, split: Split, run: Run) -> Artefact:
        """Return the original's weights w₀ moved to w₀ − scale · (w − w₀), w being the learner's."""
        import torch

        from unremember.engine.precision import single_precision

        with single_precision(start.model, [self.selection], run.settings.dtype):
            # 1. Keep the original's weights, and learn the forget set.
            original = {
                name: p.detach().clone()
                for name, p in start.model.named_parameters()
                if p.is_floating_point()
            }
            (recipe,) = self.recipes
            learner = recipe.run(start, split, run)
            # 2. Take the step back; weights that did not move stay bit for bit.
            with torch.no_grad():
                for name, p in learner.model.named_parameters():
                    if name in original and not torch.equal(p, original[name]):
                        p.copy_(original[name] - self.scale * (p - original[name]))
        return Artefact(learner.model, start.task, start.guard)

    def override(self, selection: Any = None, **parts: Any) -> TaskVector:
        """Return the method with another selection for the learner. Raises ConfigError for any other seam."""
        refuse_overrides("a task vector is plain training on the forget set, negated", parts)
        return self if selection is None else dataclasses.replace(self, selection=selection)
