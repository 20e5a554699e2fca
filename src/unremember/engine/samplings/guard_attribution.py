"""GUARD's attribution weights: rows whose forgetting would hurt the retain set are forgotten less."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from unremember.data.ordering import epoch_order
from unremember.engine.samplings import Batch, Draw
from unremember.engine.seams import Context, State
from unremember.errors import Collapsed, ConfigError, require_positive, did_you_mean
from unremember.registry import samplings
from unremember.tasks.protocol import Need

Score = Literal["dot", "cosine"]
Form = Literal["softmax", "reciprocal"]

_ENTANGLED = 2.0
"""Standard deviations above the mean from which a row's score says: forgetting it will cost retention."""


@samplings.register(
    "guard_attribution",
    paper="GUARD: Guided Unlearning and Retention via Data Attribution for Large Language Models",
    arxiv="2506.10946",
    needs=("retain", "gradients"),
    fidelity="reconstruction",
)
@dataclasses.dataclass(frozen=True)
class GuardAttribution:
    """Weigh each forget row by how little its gradient points along the retain set's; draw as ``over`` does.

    aᵢ = ⟨∇ℓᵢ, ∇ mean retain loss⟩, ω ∝ exp(-aᵢ / (tau · sd)) with mean 1 and none below ``floor``. The
    first-order damage Σ ωᵢ aᵢ of a step is then at most the uniform one. A reading of the model takes one
    backward over the retain sample and one forward-mode pass over the forget rows. The scores go stale within
    some ten steps.

    Args:
        tau: Temperature of the weights, in standard deviations of the scores.
        score: ``dot``: the inner product; ``cosine``: the control for length, one backward a forget row.
        form: ``softmax`` as above; ``reciprocal``: ω ∝ 1 / (1 + (aᵢ - min) / sd).
        floor: The least weight.
        retain_sample: How many retain rows give the direction.
        per_epoch: Readings an epoch; 0: one, before the first step, the paper's protocol as far as its
            abstract tells.
        loss: The plain training loss ℓ (``cross_entropy`` for images).
        over: The sampling that draws the rows.
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
        require_positive(self, "tau", "retain_sample")
        if not 0 <= self.floor < 1 or not self.per_epoch >= 0:
            raise ConfigError(
                "floor is a weight from 0 to below 1, per_epoch 0 or above: "
                f"not {self.floor}, {self.per_epoch}"
            )
        for value, known in ((self.score, get_args(Score)), (self.form, get_args(Form))):
            if value not in known:
                raise ConfigError(f"guard_attribution knows no {value!r}: {did_you_mean(value, known)}")

    def init(self, context: Context) -> State:
        """Start as the sampling that draws the rows does."""
        return samplings.make(self.over).init(context)

    def steps_per_epoch(self, context: Context) -> int:
        """Return the steps of an epoch of the sampling that draws the rows."""
        return samplings.make(self.over).steps_per_epoch(context)

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        """Draw a batch and multiply the weights of its forget rows with the attribution weights."""
        anchor = context.roles[0]
        batch, after = samplings.make(self.over).apply(context, state)
        if "weights" in state:
            draw = batch[anchor]
            weights = draw.weights * np.array(state["weights"])[draw.rows]
            batch = {**batch, anchor: Draw(draw.rows, weights.astype(np.float32))}
        return batch, after

    def refresh(self, context: Context, state: State) -> State:
        """Score and weigh anew where a reading is due.

        The state keeps ``scores``, ``weights`` and the position at which they were read.
        """
        position = int(state["position"])
        if "read_at" in state:
            last = int(state["read_at"])
            if self.reading_number(context, position) == self.reading_number(context, last):
                return state
        scores = self.scores(context)
        weights = self.weights(scores)
        return {**state, "scores": scores.tolist(), "weights": weights.tolist(), "read_at": position}

    def reading_number(self, context: Context, position: int) -> int:
        """Return which reading holds at a position."""
        return int(position * self.per_epoch / self.steps_per_epoch(context))

    def scores(self, context: Context) -> np.ndarray:
        """Return float64[N], the attribution of each forget row. Raises Collapsed where one is not finite."""
        anchor, keys = context.roles[0], context.split["retain"].keys
        rows = np.arange(len(context.split[anchor]))
        # 1. The retain direction G: the gradient of the mean loss over a sample of the retain set.
        sample = np.sort(epoch_order(keys, context.seed, 0)[: self.retain_sample])
        direction = context.probe.gradient("retain", sample, self.loss)
        # 2. The proxy attribution aᵢ = ⟨∇ℓᵢ, G⟩ of every row: the slope of its loss along G, in one
        #    forward-mode pass.
        scores = context.probe.slopes(direction, anchor, rows, self.loss)
        if self.score == "cosine":
            norm = sum(float(part.double().square().sum()) for part in direction.values()) ** 0.5
            norms = context.probe.lengths(anchor, rows, self.loss) * norm
            scores = scores / np.maximum(norms, np.finfo(float).tiny)
        if not np.isfinite(scores).all():
            bad = np.flatnonzero(~np.isfinite(scores))
            raise Collapsed(
                f"the attribution of {len(bad)} of {len(scores)} {anchor} rows is not finite "
                f"(first: row {bad[0]}): lower lr"
            )
        return scores

    def weights(self, scores: np.ndarray) -> np.ndarray:
        """Return float64[N] with mean 1: they fall with the score, and none is below the floor.

        All are 1 where the scores are equal.
        """
        spread = scores.std()
        if spread == 0:
            return np.ones(len(scores))
        # 3. A weight that falls with the score, in units of the scores' standard deviation, with mean 1.
        above = (scores - scores.min()) / spread
        raw = np.exp(-above / self.tau) if self.form == "softmax" else 1 / (1 + above)
        weights, floored = raw / raw.mean(), np.zeros(len(raw), dtype=bool)
        # 4. Raise what is below the floor to it, and scale the remaining weights back to mean 1, until none
        #    is below.
        while (weights < self.floor).any():
            floored |= weights < self.floor
            budget = len(raw) - self.floor * floored.sum()
            weights = np.where(floored, self.floor, raw * budget / raw[~floored].sum())
        return weights


def entanglement(context: Context, sampling: GuardAttribution = GuardAttribution()) -> list[dict[str, Any]]:
    """Say of each row to forget, before any training, what forgetting it will cost.

    Returns:
        By row: ``id`` (a digest), ``score``, ``z`` (the score in standard deviations from the mean),
        ``weight``, ``entangled`` (z above 2: forgetting it will cost retention) and ``nearest``, the id of
        the retain row whose last hidden states are most alike.
    """
    anchor, retain = context.split[context.roles[0]], context.split["retain"]
    scores = sampling.scores(context)
    z = (scores - scores.mean()) / (scores.std() or 1.0)
    forget_states, retain_states = (
        context.probe.read(role.name, np.arange(len(role)), Need("answer", "hidden", -1)).mean()
        for role in (anchor, retain)
    )
    similarity = unit_rows(forget_states) @ unit_rows(retain_states).T
    columns = zip(
        anchor.row_digests,
        scores.tolist(),
        z.tolist(),
        sampling.weights(scores).tolist(),
        similarity.argmax(1).tolist(),
    )
    return [
        {
            "id": digest,
            "score": score,
            "z": deviation,
            "weight": weight,
            "entangled": deviation > _ENTANGLED,
            "nearest": retain.row_digests[most_alike],
        }
        for digest, score, deviation, weight, most_alike in columns
    ]


def unit_rows(states: Any) -> Any:
    """Return Tensor[n, D] with every row scaled to length 1."""
    return states / states.norm(dim=1, keepdim=True)
