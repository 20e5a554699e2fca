"""Unforgotten sampling: each pass draws only the forget rows that the model still answers (KLUE)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from unremember.data.ordering import mix, shuffled
from unremember.engine.samplings import Batch, Draw
from unremember.engine.seams import Context, State
from unremember.registry import samplings


@samplings.register(
    "unforgotten",
    paper="FaithUn: Toward Faithful Forgetting in Language Models",
    arxiv="2502.19207",
    fidelity="reconstruction",
)
@dataclasses.dataclass(frozen=True)
class Unforgotten:
    """The forget rows that the model still answers, once a pass; beside each one row of every other role.

    Before each pass the model is read on all rows of the anchor role. A row with ``perturbed_answers`` is left out while
    one of them is at least as likely (a token) as its answer: the option that the model predicts is wrong. A row without is
    left out while its answer's probability a token (geometric mean) is below ``chance``. Rows may come back. ``ended`` in
    the state says that none is left. No authors' code is public: the criterion is the paper's, the constants are ours.
    """

    chance: float = 1 / 3
    refresh_every: ClassVar[int | None] = 1

    def init(self, context: Context) -> State:
        return {"position": 0}

    def steps_per_epoch(self, context: Context) -> int:
        """Steps of a pass over all rows; later passes are as much shorter as there are fewer rows left."""
        return math.ceil(len(context.keys[context.roles[0]]) / context.batch_size)

    def refresh(self, context: Context, state: State) -> State:
        """Ask at every step, read the model where a pass is over."""
        if state.get("left"):
            return state
        anchor = context.roles[0]
        order, known = self.order(context, state), self.known(context, context.split[anchor].rows)
        left = order[known[order]].tolist()
        return {**state, "left": left, "ended": not left}

    def known(self, context: Context, rows: Any) -> np.ndarray:
        """bool[n]: whether the model still answers each row."""
        options = [list(row.get("perturbed_answers") or ()) for row in rows]
        wrong = [{**row, "answer": option} for row, some in zip(rows, options) for option in some]
        scores = context.probe.mean_logprobs([*rows, *wrong])
        bar = np.full(len(rows), math.log(self.chance))
        owner = np.repeat(np.arange(len(rows)), [len(some) for some in options])
        bar[owner] = -np.inf
        np.maximum.at(bar, owner, scores[len(rows) :])
        return scores[: len(rows)] > bar

    def order(self, context: Context, state: State) -> np.ndarray:
        return shuffled(context.keys[context.roles[0]], context.seed, int(state["position"]))

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        anchor, *others = context.roles
        position = int(state["position"])
        left = state.get("left") or self.order(context, state).tolist()
        rows = np.array(left[: context.batch_size], dtype=np.int64)
        drawn = {anchor: Draw.of(rows)}
        for salt, role in enumerate(others):
            ticket = mix(context.keys[anchor][rows], context.seed, position, salt + 2)
            drawn[role] = Draw.of((ticket % len(context.keys[role])).astype("int64"))
        return drawn, {**state, "position": position + 1, "left": left[context.batch_size :]}
