"""GU, geometric disentanglement: only the part of an update that leaves the retain loss alone, in the optimiser's metric."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from scipy.optimize import nnls
from torch import Tensor

from unremember.engine.blends import PlainBlend, forget_and_retain_gradients
from unremember.engine.seams import Context, State
from unremember.engine.step import StepContext
from unremember.errors import ConfigError, nearest
from unremember.registry import blends

Rule = Literal["cone", "null", "paper"]
Place = Literal["delta", "gradient"]
Metric = Literal["adam", "euclid"]
FLOOR = 2e-8
NEAR, FAR = 2**16, 2**24
"""Entries of a weight that are multiplied at once, on a CPU and elsewhere."""
SCALES = [2.0**-i for i in range(7)]
ROUNDING = 1e-6
"""A share of the greatest product that gradients of single precision could make: below it a sign is noise."""


@blends.register("gu", paper="Geometric-disentanglement Unlearning", arxiv="2511.17100", fidelity="code")
@dataclasses.dataclass(frozen=True)
class GU(PlainBlend):
    """Take out of the forgetting what changes the retain loss to first order.

    The first role forgets; the gradient g of all others together, and the last ``history`` of them, are protected:
    columns G, whatever weight ``alpha`` the others have in the update. With M = √v̂ + ε of Adam (ones: ``euclid``, SGD,
    the first step), K = Gᵀ M⁻¹ G and v = Gᵀ Δ, the change becomes Δ − M⁻¹ G λ. ``rule`` says how:

    - ``cone``, the authors' final form: Gᵀ Δ ≤ 0 at the least |Δ − Δ₀|_M, so what helps the retain set stays (λ ≥ 0);
    - ``null``: Gᵀ Δ = 0 (λ = K⁺ v), which at the change also deletes the retain descent: for forgetting alone;
    - ``paper`` (v3, at the gradient only): ``null``, but components on Q = orth(M^-½ G) on which both gradients agree by
      more than ``tau`` stay, cut to ``kappa_cap`` times the free part.

    ``at="delta"`` corrects what the optimiser really did, momentum, clipping and decay included. ``at="gradient"``
    corrects the forget gradient before it, which under Adam promises nothing. ``finite_step``: the largest scale 1, ½, …
    1/64 of the change that raises the retain loss by no more than this (0: off), else no step; up to eight forwards more.
    Entries that never had a gradient (denominator below 2e-8) are not used to repair. The optimiser's moments stay those of the
    uncorrected step. ``uncovered`` in the log is the share of a new retain gradient, in norm, that the history did not hold.
    A recipe of one role is left as it is.
    """

    rule: Rule = "cone"
    at: Place = "delta"
    metric: Metric = "adam"
    alpha: float = 1.0
    history: int = 8
    tau: float = 0.0
    kappa_cap: float = 0.0
    finite_step: float = 0.0
    vectors: ClassVar[str] = "retain"

    def __post_init__(self) -> None:
        for name, known in (("rule", Rule), ("at", Place), ("metric", Metric)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"unknown {name} {getattr(self, name)!r}: {nearest(str(getattr(self, name)), get_args(known))}"
                )
        for name in ("alpha", "history", "tau", "kappa_cap", "finite_step"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or above, not {getattr(self, name)}")
        if self.rule == "paper" and self.at == "delta":
            raise ConfigError("rule 'paper' tells forget from retain: it needs at='gradient'")

    @property
    def corrects(self) -> bool:  # type: ignore[override]
        return self.at == "delta" or self.finite_step > 0

    def init(self, context: Context) -> State:
        return {"steps": 0, "projected": 0, **{f"retain{i}": None for i in range(self.history + 1)}}

    def apply(self, measure: StepContext, state: State) -> tuple[list[Tensor], State]:
        forget, others = forget_and_retain_gradients(measure)
        state = {**state, "steps": state["steps"] + 1}
        if not others:
            return forget, state
        retain = [functools.reduce(torch.add, parts) for parts in zip(*others)]
        state |= self.remembered(measure, state, retain)
        if self.at == "gradient":
            inverse = self.inverse(measure)
            moved, state = self.moved([-g * w for g, w in zip(forget, inverse)], inverse, measure, state)
            forget = [g + m * (w > 0) for g, m, w in zip(forget, moved, inverse)] if moved else forget
        return [torch.add(f, r, alpha=self.alpha) for f, r in zip(forget, retain)], state

    def correct(self, change: list[Tensor], measure: StepContext, state: State) -> tuple[list[Tensor], State]:
        if not measure.retain_roles:
            return change, state
        made = change
        if self.at == "delta":
            inverse = self.inverse(measure)
            moved, state = self.moved(change, inverse, measure, state)
            made = (
                [torch.addcmul(c, w, m, value=-1) for c, m, w in zip(change, moved, inverse)]
                if moved
                else change
            )
        return self.shortened(made, change, measure) if self.finite_step else made, state

    def remembered(self, measure: StepContext, state: State, retain: Sequence[Tensor]) -> State:
        """The unit gradient of now, as it is, before the last ``history`` ones, in bfloat16."""
        flat = torch.cat([g.flatten() for g in retain])
        held = [state[f"retain{i}"] for i in range(self.history)]
        older = {f"retain{i + 1}": None if h is None else h.bfloat16() for i, h in enumerate(held)}
        return {"retain0": flat.div_(measure.norm([flat]).clamp(min=torch.finfo(flat.dtype).tiny)), **older}

    def inverse(self, measure: StepContext) -> list[Tensor]:
        """The diagonal of M⁻¹; 0 for an entry that never had a gradient, which must not be cheap to move."""
        scales = measure.denominators
        return [
            torch.ones_like(h)
            if self.metric == "euclid"
            else torch.threshold(h, FLOOR, math.inf).reciprocal_()
            for h in scales
        ]

    def moved(
        self, change: Sequence[Tensor], inverse: Sequence[Tensor], measure: StepContext, state: State
    ) -> tuple[list[Tensor], State]:
        """G λ for each weight, empty where nothing is to be taken out."""
        held = [h for i in range(self.history + 1) if (h := state[f"retain{i}"]) is not None]
        columns = list(zip(*(h.to(change[0].device).split([c.numel() for c in change]) for h in held)))
        gram, along = (measure.summed(table) for table in products(columns, change, inverse))
        basis = orthonormal(gram, max(1e-12, 10 * torch.finfo(change[0].dtype).eps))
        if self.rule == "cone":
            mix = cone(gram, along, basis)
        else:
            within = basis.T @ along
            mix = basis @ (
                within - self.kept(measure, within, basis.T @ gram[:, 0], change, inverse)
                if self.rule == "paper"
                else within
            )
        touched = bool(mix.any())
        measure.note(projected=touched, harm=float(along[0]), uncovered=uncovered(gram))
        state = {**state, "projected": state["projected"] + touched}
        if not touched:
            return [], state
        active = mix.nonzero().flatten().tolist()
        return [
            combined(mix[active], [parts[i] for i in active], c) for parts, c in zip(columns, change)
        ], state

    def kept(
        self,
        measure: StepContext,
        within: Tensor,
        retain: Tensor,
        change: Sequence[Tensor],
        inverse: Sequence[Tensor],
    ) -> Tensor:
        """float64[r]: the components of the change on the basis that rule ``paper`` leaves in it; rounding is no conflict."""
        noise = ROUNDING * float(within.norm() * retain.norm())
        kept = torch.where(within * retain < -max(self.tau, noise), within, 0.0)
        size = sum((c.square() / w)[w > 0].sum().double() for c, w in zip(change, inverse))
        free = max(0.0, float(measure.summed(torch.as_tensor(size))) - float(within @ within)) ** 0.5
        return kept * min(1.0, self.kappa_cap * free / max(float(kept.norm()), 1e-300))

    def shortened(
        self, change: list[Tensor], proposal: Sequence[Tensor], measure: StepContext
    ) -> list[Tensor]:
        """The largest of ``SCALES`` × the change whose retain loss stays within the budget; the weights are at the proposal."""

        def loss(scale: float) -> float:
            return sum(
                measure.losses(
                    *measure.retain_roles, displacement=[scale * c - p for c, p in zip(change, proposal)]
                ).values()
            )

        start = loss(0.0)
        scale = next((s for s in SCALES if loss(s) - start <= self.finite_step), 0.0)
        measure.note(scale=scale)
        return change if scale == 1 else [scale * c for c in change]


def products(
    columns: Sequence[Sequence[Tensor]], change: Sequence[Tensor], inverse: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """(K = Gᵀ M⁻¹ G float64[m, m], v = Gᵀ Δ float64[m]) from each weight's columns, in one pass over the weights."""
    count = len(columns[0])
    gram, along = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    fine = torch.promote_types(change[0].dtype, torch.float32)
    room = change[0].new_empty(count, min(stretch(change[0]), max(c.numel() for c in change)), dtype=fine)
    for parts, c, w in zip(columns, change, inverse):
        for *held, step, scale in zip(*(part.flatten().split(stretch(c)) for part in (*parts, c, w))):
            rows = room[:, : len(step)]
            for row, part in zip(rows, held):
                row.copy_(part)
            gram += (rows * scale @ rows.T).double().cpu()
            along += (rows @ step.to(fine)).double().cpu()
    return gram, along


def stretch(like: Tensor) -> int:
    """How many entries are multiplied at once: a CPU goes many times faster through memory that is near it and met again."""
    return NEAR if like.device.type == "cpu" else FAR


def combined(mix: Tensor, parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """G λ of one weight, in its shape."""
    out = torch.zeros_like(like).flatten()
    for share, part in zip(mix.tolist(), parts):
        out.add_(part, alpha=share)
    return out.view_as(like)


def orthonormal(gram: Tensor, tolerance: float = 1e-12) -> Tensor:
    """float64[m, r]: combinations of the columns, in their order, that are orthonormal.

    A column whose squared distance from those before it is within ``tolerance`` of its square adds none.
    """
    basis: list[Tensor] = []
    for unit, length in zip(torch.eye(len(gram), dtype=torch.float64), gram.diagonal()):
        for b in (*basis, *basis):
            unit = unit - (b @ gram @ unit) * b
        left = unit @ gram @ unit
        if left > tolerance * length:
            basis.append(unit / left.sqrt())
    return torch.stack(basis, 1) if basis else torch.zeros(len(gram), 0, dtype=torch.float64)


def cone(gram: Tensor, along: Tensor, basis: Tensor) -> Tensor:
    """λ ≥ 0, float64[m], of the nearest change with Gᵀ Δ ≤ 0: min ½ λᵀ K λ − vᵀ λ, as non-negative least squares."""
    target = basis.T @ along
    size = float(target.norm())
    if not (along > 0).any() or size == 0:
        return torch.zeros_like(along)
    units = gram.diagonal().clamp(min=1e-300).rsqrt() * (gram.diagonal() > 0)
    return torch.from_numpy(nnls((basis.T @ gram * units).numpy(), (target / size).numpy())[0]) * units * size


def uncovered(gram: Tensor) -> float:
    """|z − Q Qᵀ z| / |z| of the newest column on the older ones: a retain batch that the history has not seen."""
    older = orthonormal(gram[1:, 1:])
    if not gram[0, 0] > 0:
        return 0.0
    return max(0.0, 1 - float((older.T @ gram[1:, 0]).square().sum() / gram[0, 0])) ** 0.5
