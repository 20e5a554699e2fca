"""All weights."""

from __future__ import annotations

import dataclasses

from unremember.engine.seams import Context, Selected
from unremember.engine.selections import only
from unremember.registry import selections


@selections.register("all", fidelity="code")
@dataclasses.dataclass(frozen=True)
class All:
    """Move every weight."""

    def apply(self, context: Context) -> Selected:
        """Free every parameter."""
        return only(context.model, [name for name, _ in context.model.named_parameters()])
