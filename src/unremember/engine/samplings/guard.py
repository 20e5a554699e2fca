"""GUARD's attribution weights: the more forgetting a row would hurt the retain set, the less it is forgotten."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from unremember.data.ordering import shuffled
from unremember.engine.samplings import Batch, Draw
from unremember.engine.seams import Context, State
from unremember.errors import Collapsed, ConfigError, above_zero, nearest
from unremember.registry import samplings
from unremember.tasks.protocol import Need

Score = Literal["dot", "cosine"]
Form = Literal["softmax", "reciprocal"]
ENTANGLED = 2.0
"""Standard deviations above the mean from which a row's score says: forgetting it will cost retention."""


@samplings.register(
    "guard",
    paper="GUARD: Guided Unlearning and Retention via Data Attribution for Large Language Models",
    arxiv="2506.10946",
    needs=("retain", "gradients"),
    fidelity="reconstruction",
)
@dataclasses.dataclass(frozen=True)
class Guard:
    """Weights on the rows to forget, from how far their gradients point along the retain set's; draws as ``over`` does.

    aᵢ = ⟨∇ℓᵢ, ∇ mean retain loss⟩, ω ∝ exp(-aᵢ / (tau · sd)) with mean 1 and none below ``floor``; ``form="reciprocal"``:
    ω ∝ 1 / (1 + (aᵢ - min) / sd). The first-order damage Σ ωᵢ aᵢ of a step is then at most the uniform one. ``loss`` is
    the plain training loss ℓ (``cross_entropy`` for images), ``retain_sample`` how many retain rows give the direction.

    The model is read ``per_epoch`` times an epoch; 0: once, before the first step, the paper's protocol as far as its
    abstract tells. The scores go stale within some ten steps. A reading takes one backward over the retain sample and
    one forward-mode pass over the forget rows; ``score="cosine"``, the control for length, one backward a forget row.
    """

    tau: float = 1.0
    score: Score = "dot"
    form: Form = "softmax"
    floor: float = 0.1
    retain_sample: int = 512
    per_epoch: float = 2.0
    loss: Any = "nll"
    over: Any = "paired"
    refresh_every: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        above_zero(self, "tau", "retain_sample")
        if not 0 <= self.floor < 1 or not self.per_epoch >= 0:
            raise ConfigError(
                f"floor is a weight from 0 to below 1, per_epoch 0 or above: not {self.floor}, {self.per_epoch}"
            )
        for value, known in ((self.score, get_args(Score)), (self.form, get_args(Form))):
            if value not in known:
                raise ConfigError(f"guard knows no {value!r}: {nearest(value, known)}")

    def init(self, context: Context) -> State:
        return samplings.make(self.over).init(context)

    def steps_per_epoch(self, context: Context) -> int:
        return samplings.make(self.over).steps_per_epoch(context)

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        anchor = context.roles[0]
        step, after = samplings.make(self.over).apply(context, state)
        if "weights" in state:
            drawn = step[anchor]
            step = {
                **step,
                anchor: Draw(
                    drawn.rows, (drawn.weights * np.array(state["weights"])[drawn.rows]).astype(np.float32)
                ),
            }
        return step, after

    def refresh(self, context: Context, state: State) -> State:
        """Score and weigh anew where a reading is due; the state keeps ``scores``, ``weights`` and when they were read."""
        position = int(state["position"])
        if "read_at" in state and self.reading(context, position) == self.reading(
            context, int(state["read_at"])
        ):
            return state
        found = self.scores(context)
        return {
            **state,
            "scores": found.tolist(),
            "weights": self.weights(found).tolist(),
            "read_at": position,
        }

    def reading(self, context: Context, position: int) -> int:
        """Which reading holds at a position."""
        return int(position * self.per_epoch / self.steps_per_epoch(context))

    def scores(self, context: Context) -> np.ndarray:
        """float64[N]: the attribution of each row of the anchor role. Raises Collapsed where one is not finite."""
        anchor, keys = context.roles[0], context.split["retain"].keys
        sample, rows = (
            np.sort(shuffled(keys, context.seed, 0)[: self.retain_sample]),
            np.arange(len(context.split[anchor])),
        )
        direction = context.probe.gradient("retain", sample, self.loss)
        found = context.probe.slopes(direction, anchor, rows, self.loss)
        if self.score == "cosine":
            length = sum(float(part.double().square().sum()) for part in direction.values()) ** 0.5
            found = found / np.maximum(
                context.probe.lengths(anchor, rows, self.loss) * length, np.finfo(float).tiny
            )
        if not np.isfinite(found).all():
            bad = np.flatnonzero(~np.isfinite(found))
            raise Collapsed(
                f"the attribution of {len(bad)} of {len(found)} {anchor} rows is not finite (first: row {bad[0]}): lower lr"
            )
        return found

    def weights(self, scores: np.ndarray) -> np.ndarray:
        """float64[N] with mean 1: falling in the score, none below the floor; ones where all scores are equal."""
        spread = scores.std()
        if spread == 0:
            return np.ones(len(scores))
        above = (scores - scores.min()) / spread
        raw = np.exp(-above / self.tau) if self.form == "softmax" else 1 / (1 + above)
        out, low = raw / raw.mean(), np.zeros(len(raw), dtype=bool)
        while (out < self.floor).any():
            low |= out < self.floor
            out = np.where(low, self.floor, raw * (len(raw) - self.floor * low.sum()) / raw[~low].sum())
        return out


def entanglement(context: Context, guard: Guard = Guard()) -> list[dict[str, Any]]:
    """What a plan says of each row to forget, before any training; ids are digests of rows.

    ``id``, ``score``, ``z`` (the score in standard deviations), ``weight``, ``entangled`` (z above 2: forgetting it will
    cost retention) and ``nearest``, the retain row whose last hidden states are most alike.
    """
    anchor, retain = context.split[context.roles[0]], context.split["retain"]
    scores = guard.scores(context)
    z = (scores - scores.mean()) / (scores.std() or 1.0)
    mine, theirs = (
        context.probe.read(role.name, np.arange(len(role)), Need("answer", "hidden", -1)).mean()
        for role in (anchor, retain)
    )
    alike = (mine / mine.norm(dim=1, keepdim=True)) @ (theirs / theirs.norm(dim=1, keepdim=True)).T
    return [
        {
            "id": digest,
            "score": score,
            "z": far,
            "weight": weight,
            "entangled": far > ENTANGLED,
            "nearest": retain.row_digests[near],
        }
        for digest, score, far, weight, near in zip(
            anchor.row_digests,
            scores.tolist(),
            z.tolist(),
            guard.weights(scores).tolist(),
            alike.argmax(1).tolist(),
        )
    ]
