"""Negation: learn with another selection, then go as far in the opposite direction (task vectors)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from unremember.engine.seams import Context, Selected
from unremember.registry import selections


@selections.register("negate", paper="Editing Models with Task Arithmetic", arxiv="2212.04089", taxonomy="local.arithmetic", fidelity="code")
@dataclasses.dataclass(frozen=True)
class Negate:
    """At the end every weight w becomes w₀ - ``scale`` · (w - w₀), w₀ the weights before; ``of`` chooses what moves.

    Until then the model learns, and whoever watches the run sees the learner. It keeps a copy of the weights before.
    """

    scale: float = 1.0
    of: Any = "all"

    def apply(self, context: Context) -> Selected:
        before = {name: p.detach().clone() for name, p in context.model.named_parameters() if p.is_floating_point()}
        inner = selections.make(self.of).apply(context)

        def finish(model: Any) -> Any:
            done = inner.finish(model)
            with torch.no_grad():
                for name, p in done.named_parameters():
                    if name in before and not torch.equal(p, before[name]):
                        p.copy_(before[name] - self.scale * (p - before[name]))
            return done

        return dataclasses.replace(inner, finish=finish)
