"""Cyclic sampling: an epoch is as long as the longest role, the shorter ones start over."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from unremember.data.samplings import Draw, Drawn, State, Steady, Step, shuffled
from unremember.registry import samplings


@samplings.register("cyclic", paper="Standard vs. Modular Sampling", arxiv="2509.05316", fidelity="code")
@dataclasses.dataclass(frozen=True)
class Cyclic(Steady):
    """Every row of every role: the longest role once an epoch, the shorter ones repeated beside it.

    An epoch has ``max(len(role))`` pairs, so it is many more steps than a paired epoch on the same data:
    compare samplings at matched steps or matched forgetting, never at equal epochs.
    """

    def steps_per_epoch(self, context: Drawn) -> int:
        return math.ceil(self.longest(context) / context.batch_size)

    def longest(self, context: Drawn) -> int:
        return max(len(context.keys[role]) for role in context.roles)

    def apply(self, context: Drawn, state: State) -> tuple[Step, State]:
        epoch, step = divmod(int(state["position"]), self.steps_per_epoch(context))
        first = step * context.batch_size
        at = np.arange(first, min(first + context.batch_size, self.longest(context)))
        drawn = {}
        for role in context.roles:
            order = shuffled(context.keys[role], context.seed, epoch)
            drawn[role] = Draw.of(order[at % len(order)])
        return drawn, {**state, "position": int(state["position"]) + 1}
