"""Paired sampling: each forget row once an epoch, beside a retain row drawn at random (the TOFU manner)."""

from __future__ import annotations

import dataclasses
import math

from unremember.data.ordering import mix, epoch_order
from unremember.engine.samplings import Batch, Draw, PlainSampling
from unremember.engine.seams import Context, State
from unremember.registry import samplings


@samplings.register(
    "paired", paper="TOFU: A Task of Fictitious Unlearning for LLMs", arxiv="2401.06121", fidelity="code"
)
@dataclasses.dataclass(frozen=True)
class Paired(PlainSampling):
    """Draw each forget row once an epoch, beside one row of every other role, drawn with replacement.

    Args:
        fixed: Put row i beside row i of the data instead, in every epoch: most retain rows are then never
            met.
    """

    fixed: bool = False

    def steps_per_epoch(self, context: Context) -> int:
        """Return the steps in which every anchor row is met once."""
        return math.ceil(len(context.keys[context.roles[0]]) / context.batch_size)

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        """Draw the batch at the state's position."""
        epoch, step = divmod(int(state["position"]), self.steps_per_epoch(context))
        anchor, *partners = context.roles
        order = epoch_order(context.keys[anchor], context.seed, epoch)
        rows = order[step * context.batch_size : (step + 1) * context.batch_size]
        batch = {anchor: Draw.of(rows)}
        for salt, role in enumerate(partners):
            ticket = rows if self.fixed else mix(context.keys[anchor][rows], context.seed, epoch, salt + 2)
            batch[role] = Draw.of((ticket % len(context.keys[role])).astype("int64"))
        return batch, {**state, "position": int(state["position"]) + 1}
