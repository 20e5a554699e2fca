"""OFMU: climb out of the forget data in an inner loop, then repair the retain data in an outer step."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from unremember.engine.blends import PlainBlend, combine, gram
from unremember.engine.seams import Context, State
from unremember.engine.step import StepContext
from unremember.errors import ConfigError, above_zero, nearest
from unremember.registry import blends

Similarity = Literal["cos", "cos2", "relu"]
Start = Literal["inner", "anchor"]
Move = list[Tensor] | None
TINY = 1e-12
VANISHED = 1e-8
"""A gradient below this share of its greatest norm so far has no direction worth comparing."""
ROUGH = 1e-2
"""The finest displacement that 16-bit weights resolve: a smaller one drowns in their rounding."""


@blends.register(
    "ofmu",
    paper="OFMU: Optimization-Driven Framework for Machine Unlearning",
    arxiv="2509.22483",
    fidelity="reconstruction",
    cost="43 forwards, 43 backwards; 31 with rho=0; 6 with rho=0 and beta=0",
)
@dataclasses.dataclass(frozen=True)
class OFMU(PlainBlend):
    """Two loops: ascend Φ = L_f - β · Sim(∇L_f, ∇L_r), then descend L_r + ρ |∇Φ|²; one step is a round of both.

    L_f is minus the first role's terms, L_r the sum of the others. From the weights, ``inner_steps`` moves of the
    learning rate along ∇Φ, all on one batch; from there ``outer_steps`` moves of ``outer_rate`` times that against
    ∇L_r + 2ρ H_Φ ∇Φ, ∇L_r on a fresh batch each. Both directions are clipped to the norm ``clip``. The update is the
    sum of the moves. ρ grows by ``rho_growth`` a round up to ``rho_max``.

    ``similarity`` is the cosine over all weights that move, its square, or its positive part. ``outer_start="anchor"``
    starts the outer move at the round's own weights, the printed formula's other reading; it forgets nothing.
    Hessians times vectors are differences of gradients, ``fd_scale`` times the norm of the weights apart: central in
    ∇Sim, one-sided for H_Φ ∇Φ, whose ∇Φ is then the one at hand. 16-bit weights need 1e-2 (warned).

    Reconstructed from a public review of the paper: T = 5 is the paper's, the other defaults are set on the micro-world.
    ρ is not portable between models: the log has ``phi`` = |∇Φ| and ``penalty`` = |2ρ H_Φ ∇Φ| / |∇L_r|, and a penalty
    above 1, which pulls back towards memory, warns. With one role only the ascent is left.
    """

    inner_steps: int = 5
    beta: float = 0.1
    similarity: Similarity = "cos"
    rho: float = 0.003
    rho_growth: float = 1.0
    rho_max: float = float("inf")
    outer_steps: int = 1
    outer_rate: float = 5.0
    outer_start: Start = "inner"
    fd_scale: float = 1e-3
    clip: float = 1.0
    raw: ClassVar[bool] = True

    def __post_init__(self) -> None:
        above_zero(self, "fd_scale", "clip")
        for name, known in (("similarity", get_args(Similarity)), ("outer_start", get_args(Start))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"unknown {name} {getattr(self, name)!r}: {nearest(getattr(self, name), known)}"
                )

    @property
    def draws(self) -> int:  # type: ignore[override]
        return self.outer_steps

    def init(self, context: Context) -> State:
        if self.fd_scale < ROUGH and any(
            p.requires_grad and p.dtype.itemsize < 4 for p in context.model.parameters()
        ):
            warnings.warn(
                f"16-bit weights do not resolve fd_scale={self.fd_scale:g}: keep them in float32 or set {ROUGH:g}",
                stacklevel=2,
            )
        return {"round": 0, "forget_peak": 0.0, "retain_peak": 0.0}

    def apply(self, measure: StepContext, state: State) -> tuple[list[Tensor], State]:
        peaks = (state["forget_peak"], state["retain_peak"])
        rho = min(self.rho * self.rho_growth ** state["round"], self.rho_max)
        at: Move = None
        near: Move = None
        for _ in range(self.inner_steps):
            slope, cosine, peaks = self.slope(measure, at, peaks)
            measure.note(phi=length(measure, slope), cosine=cosine)
            near = slope if near is None or self.outer_start == "inner" else near
            at = moved(at, measure.lr, self.clipped(measure, slope))
        at = at if self.outer_start == "inner" else None
        for _ in range(self.outer_steps if measure.retain_roles else 0):
            pull = self.pull(measure, rho, at, near, peaks)
            measure.draw()
            retain = lower(measure, at)
            measure.note(rho=rho, pull=(share := length(measure, pull) / (length(measure, retain) + TINY)))
            if share > 1:
                warnings.warn(
                    "the pull to stationarity outweighs the retain gradient and undoes the forgetting: lower rho",
                    stacklevel=2,
                )
            at = moved(
                at,
                -self.outer_rate * measure.lr,
                self.clipped(measure, [a + b for a, b in zip(retain, pull)]),
            )
        return still(measure) if at is None else at, {
            "round": state["round"] + 1,
            "forget_peak": peaks[0],
            "retain_peak": peaks[1],
        }

    def slope(
        self, measure: StepContext, at: Move, peaks: tuple[float, float]
    ) -> tuple[list[Tensor], float, tuple[float, float]]:
        """(∇Φ at weights + ``at``, the cosine of the two gradients, their greatest norms so far)."""
        forget = rise(measure, at)
        if not self.beta:
            return forget, 0.0, peaks
        retain = lower(measure, at)
        inner = gram(measure, {"forget": forget, "retain": retain})
        f, r = float(inner[0, 0]) ** 0.5, float(inner[1, 1]) ** 0.5
        peaks = (max(f, peaks[0]), max(r, peaks[1]))
        if f <= VANISHED * peaks[0] or r <= VANISHED * peaks[1]:
            return forget, 0.0, peaks
        f, r = f + TINY, r + TINY
        cosine = float(inner[0, 1]) / (f * r)
        both = {"forget": forget, "retain": retain}
        turn_forget = combine(both, [-cosine / f**2, 1 / (f * r)])
        turn_retain = combine(both, [1 / (f * r), -cosine / r**2])
        weight = self.beta * {"cos": 1.0, "cos2": 2 * cosine, "relu": float(cosine > 0)}[self.similarity]
        if not weight:
            return forget, cosine, peaks
        gap = self.gap(measure)
        bent = [
            a + b
            for a, b in zip(
                curve(measure, rise, at, turn_forget, gap), curve(measure, lower, at, turn_retain, gap)
            )
        ]
        return [g - weight * s for g, s in zip(forget, bent)], cosine, peaks

    def pull(
        self, measure: StepContext, rho: float, at: Move, near: Move, peaks: tuple[float, float]
    ) -> list[Tensor]:
        """2ρ H_Φ ∇Φ at weights + ``at``, with ``near`` for ∇Φ: the inner loop's nearest reading of it."""
        if not rho:
            return still(measure)
        slope = lambda measure, at: self.slope(measure, at, peaks)[0]  # noqa: E731
        return [2 * rho * c for c in curve(measure, slope, at, near or slope(measure, at), self.gap(measure))]

    def gap(self, measure: StepContext) -> float:
        """How far apart the weights of a finite difference are."""
        return self.fd_scale * length(measure, measure.parameters) + TINY

    def clipped(self, measure: StepContext, direction: Sequence[Tensor]) -> list[Tensor]:
        scale = min(1.0, self.clip / (length(measure, direction) + TINY))
        return [scale * d for d in direction]


def rise(measure: StepContext, at: Move) -> list[Tensor]:
    """∇L_f at weights + ``at``: minus the gradient of the first role's terms."""
    gradients = measure.gradients(*measure.forget_roles, displacement=at)
    return combine(gradients, [-1.0] * len(gradients))


def lower(measure: StepContext, at: Move) -> list[Tensor]:
    """∇L_r at weights + ``at``: the gradients of the other roles' terms added up."""
    kept = measure.retain_roles
    return combine(measure.gradients(*kept, displacement=at), [1.0] * len(kept)) if kept else still(measure)


def curve(
    measure: StepContext,
    gradient: Callable[[StepContext, Move], list[Tensor]],
    at: Move,
    along: Sequence[Tensor],
    gap: float,
) -> list[Tensor]:
    """The Hessian behind ``gradient``, times ``along``: a central difference over ``gap`` to either side."""
    size = length(measure, along)
    up, down = (gradient(measure, moved(at, side * gap / (size + TINY), along)) for side in (1, -1))
    return [size / (2 * gap) * (a - b) for a, b in zip(up, down)]


def moved(at: Move, rate: float, direction: Sequence[Tensor]) -> list[Tensor]:
    """``at`` + rate · direction."""
    return [rate * d for d in direction] if at is None else [a + rate * d for a, d in zip(at, direction)]


def still(measure: StepContext) -> list[Tensor]:
    return [torch.zeros_like(p) for p in measure.parameters]


def length(measure: StepContext, tensors: Sequence[Tensor]) -> float:
    return float(measure.norm([t.detach() for t in tensors]))
