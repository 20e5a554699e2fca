"""All weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from unremember.engine.seams import Selected
from unremember.engine.selections import only
from unremember.registry import selections


@selections.register("all", fidelity="code")
@dataclasses.dataclass(frozen=True)
class All:
    """Every weight moves."""

    def apply(self, model: Any) -> Selected:
        return only(model, [name for name, _ in model.named_parameters()])
