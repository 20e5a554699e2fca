"""OFMU: ascend on the forget loss in an inner loop, then repair the retain loss in an outer step."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from unremember.engine.blends import PlainBlend, combine, gram
from unremember.engine.seams import Context, State
from unremember.engine.step import Displacement, StepContext
from unremember.errors import ConfigError, did_you_mean, require_not_negative, require_positive
from unremember.registry import blends

Similarity = Literal["cos", "cos2", "relu"]
OuterStart = Literal["inner", "anchor"]
Peaks = tuple[float, float]
"""The greatest norms of the forget and of the retain gradient so far."""
GradientOracle = Callable[[StepContext, Displacement], list[Tensor]]
"""A gradient at displaced weights."""

_TINY = 1e-12
_VANISHED = 1e-8
"""A gradient below this share of its greatest norm so far has no direction worth comparing."""
_COARSE_FD_SCALE = 1e-2
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
    """Ascend Φ = L_f - β · Sim(∇L_f, ∇L_r), then descend L_r + ρ |∇Φ|²: a round of both loops is a step.

    L_f is minus the forget roles' terms, L_r the sum of the retain roles' terms. From the weights,
    ``inner_steps`` moves of the learning rate along ∇Φ, all on one batch; from there ``outer_steps`` moves of
    ``outer_rate`` times that against ∇L_r + 2ρ H_Φ ∇Φ, ∇L_r on a fresh batch each. The update is the sum of
    the moves.

    Hessians times vectors are differences of gradients: central in ∇Sim, one-sided for H_Φ ∇Φ, whose ∇Φ is
    then the one at hand. Reconstructed from a public review of the paper: T = 5 is the paper's, the other
    defaults are set on the micro-world. ρ is not portable between models: the log has ``phi`` = |∇Φ| and
    ``penalty``, which is |2ρ H_Φ ∇Φ| / |∇L_r|; a penalty above 1, which pulls back towards memory, warns.
    Without retain roles only the ascent is left.

    Args:
        inner_steps: T, the ascent steps of a round.
        beta: β, the weight of the similarity of the two gradients.
        similarity: The cosine over all weights that move (``cos``), its square (``cos2``), or its positive
            part (``relu``).
        rho: ρ, the weight of the stationarity penalty, in the first round.
        rho_growth: Factor by which ρ grows a round.
        rho_max: The greatest ρ.
        outer_steps: Descent steps of a round.
        outer_rate: Rate of the outer steps, as a multiple of the learning rate.
        outer_start: ``inner``: where the inner loop ended. ``anchor``: the round's own weights, the printed
            formula's other reading; it forgets nothing.
        fd_scale: Length of a finite difference, as a share of the norm of the weights. 16-bit weights need
            1e-2 (warned).
        clip: Norm to which each direction is clipped.
    """

    inner_steps: int = 5
    beta: float = 0.1
    similarity: Similarity = "cos"
    rho: float = 0.003
    rho_growth: float = 1.0
    rho_max: float = float("inf")
    outer_steps: int = 1
    outer_rate: float = 5.0
    outer_start: OuterStart = "inner"
    fd_scale: float = 1e-3
    clip: float = 1.0
    raw: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(self, "fd_scale", "clip")
        require_not_negative(
            self, "inner_steps", "beta", "rho", "rho_growth", "rho_max", "outer_steps", "outer_rate"
        )
        for name, choices in (("similarity", Similarity), ("outer_start", OuterStart)):
            value, known = getattr(self, name), get_args(choices)
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}: {did_you_mean(value, known)}")

    @property
    def draws(self) -> int:  # type: ignore[override]
        """The most further batches of a step: one an outer step."""
        return self.outer_steps

    def init(self, context: Context) -> State:
        """Start at round 0. Warns where the weights are too coarse for the finite differences."""
        moving = [p for p in context.model.parameters() if p.requires_grad]
        if self.fd_scale < _COARSE_FD_SCALE and any(p.dtype.itemsize < 4 for p in moving):
            warnings.warn(
                f"16-bit weights do not resolve fd_scale={self.fd_scale:g}: "
                f"keep them in float32 or set {_COARSE_FD_SCALE:g}",
                stacklevel=2,
            )
        return {"round": 0, "forget_peak": 0.0, "retain_peak": 0.0}

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        """Return the displacement of one round."""
        rho = min(self.rho * self.rho_growth ** state["round"], self.rho_max)
        peaks: Peaks = (state["forget_peak"], state["retain_peak"])
        # 1. Inner problem: ascend on Φ.
        displacement, inner_gradient, peaks = self.ascend(step, peaks)
        # 2. Outer problem: descend on L_r + ρ |∇Φ|², by default from where the ascent ended (a warm start).
        if self.outer_start == "anchor":
            displacement = None
        displacement = self.repair(step, rho, displacement, inner_gradient, peaks)
        change = zeros_like_weights(step) if displacement is None else list(displacement)
        # 3. ρ grows with the round.
        return change, {"round": state["round"] + 1, "forget_peak": peaks[0], "retain_peak": peaks[1]}

    def ascend(self, step: StepContext, peaks: Peaks) -> tuple[Displacement, list[Tensor] | None, Peaks]:
        """Take the inner steps.

        Returns: The displacement, ∇Φ where the outer step will start (as near to it as the loop read it), the
            peaks.
        """
        displacement: Displacement = None
        start_gradient: list[Tensor] | None = None
        for _ in range(self.inner_steps):
            gradient, cosine, peaks = self.inner_gradient(step, displacement, peaks)
            step.note(phi=global_norm(step, gradient), cosine=cosine)
            if start_gradient is None or self.outer_start == "inner":
                start_gradient = gradient
            displacement = displaced(displacement, step.lr, self.clipped(step, gradient))
        return displacement, start_gradient, peaks

    def repair(
        self,
        step: StepContext,
        rho: float,
        displacement: Displacement,
        inner_gradient: list[Tensor] | None,
        peaks: Peaks,
    ) -> Displacement:
        """Take the outer steps, each on a fresh retain batch; return the displacement after them."""
        for _ in range(self.outer_steps if step.retain_roles else 0):
            penalty = self.penalty_gradient(step, rho, displacement, inner_gradient, peaks)
            step.draw()
            retain = retain_gradient(step, displacement)
            share = global_norm(step, penalty) / (global_norm(step, retain) + _TINY)
            step.note(rho=rho, penalty=share)
            if share > 1:
                warnings.warn(
                    "the stationarity penalty outweighs the retain gradient "
                    "and undoes the forgetting: lower rho",
                    stacklevel=2,
                )
            direction = self.clipped(step, [a + b for a, b in zip(retain, penalty)])
            displacement = displaced(displacement, -self.outer_rate * step.lr, direction)
        return displacement

    def inner_gradient(
        self, step: StepContext, displacement: Displacement, peaks: Peaks
    ) -> tuple[list[Tensor], float, Peaks]:
        """Return ∇Φ at displaced weights, the cosine of the two gradients, and the peaks of their norms."""
        # a. The two gradients and their cosine c.
        forget = forget_ascent_gradient(step, displacement)
        if not self.beta:
            return forget, 0.0, peaks
        retain = retain_gradient(step, displacement)
        inner = gram(step, {"forget": forget, "retain": retain})
        forget_norm, retain_norm = float(inner[0, 0]) ** 0.5, float(inner[1, 1]) ** 0.5
        peaks = (max(forget_norm, peaks[0]), max(retain_norm, peaks[1]))
        if forget_norm <= _VANISHED * peaks[0] or retain_norm <= _VANISHED * peaks[1]:
            return forget, 0.0, peaks
        forget_norm, retain_norm = forget_norm + _TINY, retain_norm + _TINY
        cosine = float(inner[0, 1]) / (forget_norm * retain_norm)
        weight = self.beta * {"cos": 1.0, "cos2": 2 * cosine, "relu": float(cosine > 0)}[self.similarity]
        if not weight:
            return forget, cosine, peaks
        # b. The directions u_f = (unit(g_r) − c unit(g_f)) / |g_f| and u_r = (unit(g_f) − c unit(g_r)) /
        #    |g_r|.
        both = {"forget": forget, "retain": retain}
        cross = 1 / (forget_norm * retain_norm)
        forget_direction = combine(both, [-cosine / forget_norm**2, cross])
        retain_direction = combine(both, [cross, -cosine / retain_norm**2])
        # c. ∇Sim = H_f u_f + H_r u_r, by central differences: no double backward.
        difference = self.difference_length(step)
        similarity_gradient = [
            a + b
            for a, b in zip(
                hessian_vector_product(
                    step, forget_ascent_gradient, displacement, forget_direction, difference
                ),
                hessian_vector_product(step, retain_gradient, displacement, retain_direction, difference),
            )
        ]
        return [g - weight * s for g, s in zip(forget, similarity_gradient)], cosine, peaks

    def penalty_gradient(
        self,
        step: StepContext,
        rho: float,
        displacement: Displacement,
        inner_gradient: list[Tensor] | None,
        peaks: Peaks,
    ) -> list[Tensor]:
        """Return 2ρ H_Φ ∇Φ, the gradient of ρ |∇Φ|², at displaced weights.

        Args:
            inner_gradient: ∇Φ, as the inner loop read it nearest to there; None: it is computed.
        """
        if not rho:
            return zeros_like_weights(step)

        def gradient(step: StepContext, displacement: Displacement) -> list[Tensor]:
            return self.inner_gradient(step, displacement, peaks)[0]

        vector = inner_gradient or gradient(step, displacement)
        difference = self.difference_length(step)
        product = hessian_vector_product(step, gradient, displacement, vector, difference)
        return [2 * rho * p for p in product]

    def difference_length(self, step: StepContext) -> float:
        """Return the length of a finite difference."""
        return self.fd_scale * global_norm(step, step.parameters) + _TINY

    def clipped(self, step: StepContext, direction: Sequence[Tensor]) -> list[Tensor]:
        """Return the direction at a norm of at most ``clip``."""
        scale = min(1.0, self.clip / (global_norm(step, direction) + _TINY))
        return [scale * d for d in direction]


def forget_ascent_gradient(step: StepContext, displacement: Displacement) -> list[Tensor]:
    """Return ∇L_f at displaced weights: minus the gradient of the forget roles' terms."""
    gradients = step.gradients(*step.forget_roles, displacement=displacement)
    return combine(gradients, [-1.0] * len(gradients))


def retain_gradient(step: StepContext, displacement: Displacement) -> list[Tensor]:
    """Return ∇L_r at displaced weights: the sum of the gradients of the retain roles' terms."""
    if not step.retain_roles:
        return zeros_like_weights(step)
    gradients = step.gradients(*step.retain_roles, displacement=displacement)
    return combine(gradients, [1.0] * len(gradients))


def hessian_vector_product(
    step: StepContext,
    gradient: GradientOracle,
    displacement: Displacement,
    vector: Sequence[Tensor],
    difference: float,
) -> list[Tensor]:
    """Return H · vector by a central difference, where H is the derivative of ``gradient``.

    Args:
        gradient: What returns a gradient at displaced weights.
        displacement: Where H is taken.
        vector: What H is applied to, one tensor a weight.
        difference: Length of the difference to either side.
    """
    size = global_norm(step, vector)
    ahead, behind = (
        gradient(step, displaced(displacement, side * difference / (size + _TINY), vector))
        for side in (1, -1)
    )
    return [size / (2 * difference) * (a - b) for a, b in zip(ahead, behind)]


def displaced(displacement: Displacement, rate: float, direction: Sequence[Tensor]) -> list[Tensor]:
    """Return ``displacement`` + rate · direction."""
    if displacement is None:
        return [rate * d for d in direction]
    return [m + rate * d for m, d in zip(displacement, direction)]


def zeros_like_weights(step: StepContext) -> list[Tensor]:
    """Return a displacement of nothing."""
    return [torch.zeros_like(p) for p in step.parameters]


def global_norm(step: StepContext, tensors: Sequence[Tensor]) -> float:
    """Return the 2-norm of all tensors together."""
    return float(step.norm([t.detach() for t in tensors]))
