"""Unforgotten sampling: each pass draws only the forget rows that the model still answers (KLUE)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from unremember.data.ordering import epoch_order, mix
from unremember.engine.samplings import Batch, Draw
from unremember.engine.seams import Context, State
from unremember.errors import ConfigError
from unremember.registry import samplings


@samplings.register(
    "unforgotten",
    paper="FaithUn: Toward Faithful Forgetting in Language Models",
    arxiv="2502.19207",
    fidelity="reconstruction",
)
@dataclasses.dataclass(frozen=True)
class Unforgotten:
    """Draw the forget rows that the model still answers, once a pass, each beside a row of every other role.

    Before each pass the model is read on all rows of the anchor role. A row with ``perturbed_answers`` is
    left out while one of them is at least as likely (a token) as its answer: the option that the model
    predicts is wrong. A row without is left out while its answer's probability a token (geometric mean) is
    below ``chance``. Rows may come back. ``ended`` in the state says that none is left. No authors' code is
    public: the criterion is the paper's, the constants are ours.

    Args:
        chance: Probability a token below which a row without options counts as forgotten, above 0.
    """

    chance: float = 1 / 3
    refresh_every: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        if not 0 < self.chance <= 1:
            raise ConfigError(f"chance={self.chance}: give a probability above 0 and at most 1")

    def init(self, context: Context) -> State:
        """Start at position 0."""
        return {"position": 0}

    def steps_per_epoch(self, context: Context) -> int:
        """Return the steps of a pass over all rows; later passes are shorter, as fewer rows are left."""
        return math.ceil(len(context.keys[context.roles[0]]) / context.batch_size)

    def refresh(self, context: Context, state: State) -> State:
        """Choose the rows of the next pass where a pass is over; no row left ends the run."""
        if state.get("left"):
            return state
        order = self.order(context, state)
        answered = self.still_answered(context, context.split[context.roles[0]].rows)
        left = order[answered[order]].tolist()
        return {**state, "left": left, "ended": not left}

    def still_answered(self, context: Context, rows: Any) -> np.ndarray:
        """Return bool[n], whether the model still answers each row."""
        # 1. The mean log-probability a token of every answer, and of every wrong option.
        options = [list(row.get("perturbed_answers") or ()) for row in rows]
        wrong = [{**row, "answer": option} for row, listed in zip(rows, options) for option in listed]
        scores = context.probe.mean_logprobs([*rows, *wrong])
        # 2. The bar of a row is its likeliest wrong option, or chance where it has none.
        bar = np.full(len(rows), math.log(self.chance))
        owner = np.repeat(np.arange(len(rows)), [len(listed) for listed in options])
        bar[owner] = -np.inf
        np.maximum.at(bar, owner, scores[len(rows) :])
        return scores[: len(rows)] > bar

    def order(self, context: Context, state: State) -> np.ndarray:
        """Return int64[n], the order of all anchor rows in the pass that begins at the state's position."""
        return epoch_order(context.keys[context.roles[0]], context.seed, int(state["position"]))

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        """Draw the next rows of the pass."""
        anchor, *partners = context.roles
        position = int(state["position"])
        left = state.get("left") or self.order(context, state).tolist()
        rows = np.array(left[: context.batch_size], dtype=np.int64)
        batch = {anchor: Draw.of(rows)}
        for salt, role in enumerate(partners):
            ticket = mix(context.keys[anchor][rows], context.seed, position, salt + 2)
            batch[role] = Draw.of((ticket % len(context.keys[role])).astype("int64"))
        return batch, {**state, "position": position + 1, "left": left[context.batch_size :]}
