"""GU, geometric disentanglement: the part of an update that leaves the retain loss alone."""

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
from unremember.errors import ConfigError, did_you_mean, require_not_negative
from unremember.registry import blends

Rule = Literal["cone", "null", "paper"]
Projected = Literal["delta", "gradient"]
Metric = Literal["adam", "euclid"]

_NO_GRADIENT = 2e-8
"""An entry whose Adam denominator is below this never had a gradient."""
_CPU_CHUNK, _GPU_CHUNK = 2**16, 2**24
"""Entries of a weight that are multiplied at once, on a CPU and elsewhere."""
_SCALES = [2.0**-i for i in range(7)]
"""The shares of a step that ``finite_step`` tries, largest first."""
_ROUNDING = 1e-6
"""Share of the greatest product that single precision can get wrong: below it a sign is noise."""


@blends.register("gu", paper="Geometric-disentanglement Unlearning", arxiv="2511.17100", fidelity="code")
@dataclasses.dataclass(frozen=True)
class GU(PlainBlend):
    """Take out of the forgetting what changes the retain loss to first order.

    The forget roles forget; the gradient g of all retain roles together, and the last ``history`` of them,
    are protected: the columns of G, whatever weight ``alpha`` the retain roles have in the update. With M =
    √v̂ + ε of Adam (ones for ``euclid``, SGD and the first step), K = Gᵀ M⁻¹ G and v = Gᵀ Δ, the change
    becomes Δ − M⁻¹ G λ.

    The optimiser's moments stay those of the uncorrected step. Entries that never had a gradient (denominator
    below 2e-8) are not used to repair. A recipe without retain roles is left as it is. The log has
    ``projected`` (whether anything was taken out), ``harm`` (g · Δ before the projection) and ``uncovered``:
    the share of the new retain gradient, in norm, that the history does not hold.

    Args:
        rule: How λ is chosen. ``cone``, the authors' final form: Gᵀ Δ ≤ 0 at the least |Δ − Δ₀|_M, so what
            helps the retain set stays (λ ≥ 0). ``null``: Gᵀ Δ = 0 (λ = K⁺ v), which at the change also
            deletes the retain descent: for forgetting alone. ``paper`` (v3, at the gradient only): ``null``,
            but components on Q = orth(M^-½ G) on which both gradients agree by more than ``tau`` stay, cut to
            ``kappa_cap`` times the free part.
        project: What is projected. ``delta``: the change that the optimiser really made, with momentum,
            clipping and decay. ``gradient``: the forget gradient before the optimiser, which under Adam
            promises nothing.
        metric: ``adam``: the metric M of the optimiser. ``euclid``: M = 1.
        alpha: Weight of the retain gradient in the update.
        history: Retain gradients of earlier steps that are protected, besides that of this step.
        tau: Agreement above which rule ``paper`` leaves a component alone.
        kappa_cap: Longest part that rule ``paper`` leaves, as a multiple of the free part's length.
        finite_step: Budget for the rise of the retain loss in one step (0: off). The largest of the scales 1,
            ½, … 1/64 of the change that keeps to it is taken, else none; up to eight forwards more a step.
    """

    rule: Rule = "cone"
    project: Projected = "delta"
    metric: Metric = "adam"
    alpha: float = 1.0
    history: int = 8
    tau: float = 0.0
    kappa_cap: float = 0.0
    finite_step: float = 0.0
    vectors: ClassVar[str] = "retain"

    def __post_init__(self) -> None:
        for name, choices in (("rule", Rule), ("project", Projected), ("metric", Metric)):
            value, known = getattr(self, name), get_args(choices)
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}: {did_you_mean(str(value), known)}")
        require_not_negative(self, "alpha", "history", "tau", "kappa_cap", "finite_step")
        if self.rule == "paper" and self.project == "delta":
            raise ConfigError("rule 'paper' tells forget from retain: it needs project='gradient'")

    @property
    def corrects(self) -> bool:  # type: ignore[override]
        """Whether the realised change is corrected."""
        return self.project == "delta" or self.finite_step > 0

    def init(self, context: Context) -> State:
        """Start with an empty history."""
        return {"steps": 0, "projected": 0, **{f"retain{i}": None for i in range(self.history + 1)}}

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        """Return the gradient for the optimiser: forget, projected where that is asked, + alpha · retain."""
        forget, by_role = forget_and_retain_gradients(step)
        state = {**state, "steps": state["steps"] + 1}
        if not by_role:
            return forget, state
        # 1. Protected set: the retain gradient of this step joins the history.
        retain = [functools.reduce(torch.add, parts) for parts in zip(*by_role)]
        state |= self.extended_history(step, state, retain)
        # 2. At the gradient: project the change −M⁻¹ g that the forget gradient stands for, and write the
        #    equivalent gradient back.
        if self.project == "gradient":
            inverse = self.inverse_metric(step)
            change = [-g * w for g, w in zip(forget, inverse)]
            removed, state = self.protected_component(step, change, inverse, state)
            if removed:
                forget = [g + r * (w > 0) for g, r, w in zip(forget, removed, inverse)]
        # 3. Joint update: the retain part is kept whole, so the retain loss descends.
        return [torch.add(f, r, alpha=self.alpha) for f, r in zip(forget, retain)], state

    def correct(self, change: list[Tensor], step: StepContext, state: State) -> tuple[list[Tensor], State]:
        """Return the realised change Δ less M⁻¹ G λ, scaled down to the budget of ``finite_step``."""
        if not step.retain_roles:
            return change, state
        corrected = change
        # 4. At the change: M is the optimiser's metric after its step.
        if self.project == "delta":
            inverse = self.inverse_metric(step)
            removed, state = self.protected_component(step, change, inverse, state)
            if removed:
                corrected = [torch.addcmul(c, w, r, value=-1) for c, r, w in zip(change, removed, inverse)]
        # 5. Finite steps raise the retain loss by curvature: accept the largest scale within the budget.
        if self.finite_step:
            corrected = self.scaled_to_budget(step, corrected, change)
        return corrected, state

    def extended_history(self, step: StepContext, state: State, retain: Sequence[Tensor]) -> State:
        """Return the history: this step's unit retain gradient, then the last ``history`` in bfloat16."""
        flat = torch.cat([g.flatten() for g in retain])
        earlier = [state[f"retain{i}"] for i in range(self.history)]
        shifted = {f"retain{i + 1}": None if g is None else g.bfloat16() for i, g in enumerate(earlier)}
        return {"retain0": flat.div_(step.norm([flat]).clamp(min=torch.finfo(flat.dtype).tiny)), **shifted}

    def inverse_metric(self, step: StepContext) -> list[Tensor]:
        """Return the diagonal of M⁻¹; 0 for an entry that never had a gradient, as it would be cheap."""
        if self.metric == "euclid":
            return [torch.ones_like(h) for h in step.denominators]
        return [torch.threshold(h, _NO_GRADIENT, math.inf).reciprocal_() for h in step.denominators]

    def protected_component(
        self, step: StepContext, change: Sequence[Tensor], inverse: Sequence[Tensor], state: State
    ) -> tuple[list[Tensor], State]:
        """Return G λ for each weight, which M⁻¹ turns into what is taken out; empty where that is nothing."""
        # a. The columns of G, and its Gram form: only K and v cross processes.
        history = [g for i in range(self.history + 1) if (g := state[f"retain{i}"]) is not None]
        sizes = [c.numel() for c in change]
        columns = list(zip(*(g.to(change[0].device).split(sizes) for g in history)))
        gram, alignment = (step.summed(table) for table in metric_products(columns, change, inverse))
        # b. A basis of the columns in the metric of this step: Q = M^-½ G basis.
        basis = orthonormal_basis(gram, max(1e-12, 10 * torch.finfo(change[0].dtype).eps))
        # c. The multipliers λ of the rule.
        if self.rule == "cone":
            multipliers = cone_multipliers(gram, alignment, basis)
        else:
            components = basis.T @ alignment
            if self.rule == "paper":
                retain = basis.T @ gram[:, 0]
                components = components - self.agreeing_components(step, components, retain, change, inverse)
            multipliers = basis @ components
        projected = bool(multipliers.any())
        step.note(projected=projected, harm=float(alignment[0]), uncovered=uncovered_share(gram))
        state = {**state, "projected": state["projected"] + projected}
        if not projected:
            return [], state
        # d. G λ, weight by weight.
        active = multipliers.nonzero().flatten().tolist()
        return [
            weighted_columns(multipliers[active], [parts[i] for i in active], c)
            for parts, c in zip(columns, change)
        ], state

    def agreeing_components(
        self,
        step: StepContext,
        components: Tensor,
        retain: Tensor,
        change: Sequence[Tensor],
        inverse: Sequence[Tensor],
    ) -> Tensor:
        """Return the components of the change on the basis that rule ``paper`` leaves in it.

        Args:
            components: float64[r], the change on the basis.
            retain: float64[r], the retain gradient on the basis.
            change: The change of each weight.
            inverse: The diagonal of M⁻¹ for each weight.

        Returns:
            float64[r], 0 where the two conflict; rounding is no conflict.
        """
        noise = _ROUNDING * float(components.norm() * retain.norm())
        agreeing = torch.where(components * retain < -max(self.tau, noise), components, 0.0)
        square = sum((c.square() / w)[w > 0].sum().double() for c, w in zip(change, inverse))
        whole = float(step.summed(torch.as_tensor(square)))
        free = max(0.0, whole - float(components @ components)) ** 0.5
        return agreeing * min(1.0, self.kappa_cap * free / max(float(agreeing.norm()), 1e-300))

    def scaled_to_budget(
        self, step: StepContext, change: list[Tensor], proposal: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the largest scale of ``change`` whose retain loss rises by at most ``finite_step``.

        Args:
            change: The corrected change.
            proposal: The change that the optimiser made: the weights are there now.
        """

        def retain_loss(scale: float) -> float:
            displacement = [scale * c - p for c, p in zip(change, proposal)]
            return sum(step.losses(*step.retain_roles, displacement=displacement).values())

        start = retain_loss(0.0)
        scale = next((s for s in _SCALES if retain_loss(s) - start <= self.finite_step), 0.0)
        step.note(scale=scale)
        return change if scale == 1 else [scale * c for c in change]


def metric_products(
    columns: Sequence[Sequence[Tensor]], change: Sequence[Tensor], inverse: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return K = Gᵀ M⁻¹ G float64[m, m] and v = Gᵀ Δ float64[m], in one pass over the weights.

    Args:
        columns: By weight, its part of each of the m columns of G, flattened.
        change: Δ of each weight.
        inverse: The diagonal of M⁻¹ of each weight.
    """
    count = len(columns[0])
    gram, alignment = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    fine = torch.promote_types(change[0].dtype, torch.float32)
    width = min(chunk_size(change[0]), max(c.numel() for c in change))
    buffer = change[0].new_empty(count, width, dtype=fine)
    for parts, c, w in zip(columns, change, inverse):
        for *chunks, delta, scale in zip(*(part.flatten().split(chunk_size(c)) for part in (*parts, c, w))):
            rows = buffer[:, : len(delta)]
            for row, chunk in zip(rows, chunks):
                row.copy_(chunk)
            gram += (rows * scale @ rows.T).double().cpu()
            alignment += (rows @ delta.to(fine)).double().cpu()
    return gram, alignment


def chunk_size(like: Tensor) -> int:
    """Return how many entries to multiply at once: a CPU is many times faster within its cache."""
    return _CPU_CHUNK if like.device.type == "cpu" else _GPU_CHUNK


def weighted_columns(multipliers: Tensor, parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return G λ of one weight, in the shape of ``like``."""
    total = torch.zeros_like(like).flatten()
    for multiplier, part in zip(multipliers.tolist(), parts):
        total.add_(part, alpha=multiplier)
    return total.view_as(like)


def orthonormal_basis(gram: Tensor, tolerance: float = 1e-12) -> Tensor:
    """Return float64[m, r], combinations of the columns, in their order, that are orthonormal.

    Args:
        gram: float64[m, m], the inner products of the columns.
        tolerance: A column adds none where its squared distance from those before it is at most this share
            of its square.
    """
    basis: list[Tensor] = []
    for unit, square in zip(torch.eye(len(gram), dtype=torch.float64), gram.diagonal()):
        for b in (*basis, *basis):  # twice: once leaves rounding errors
            unit = unit - (b @ gram @ unit) * b
        residual = unit @ gram @ unit
        if residual > tolerance * square:
            basis.append(unit / residual.sqrt())
    return torch.stack(basis, 1) if basis else torch.zeros(len(gram), 0, dtype=torch.float64)


def cone_multipliers(gram: Tensor, alignment: Tensor, basis: Tensor) -> Tensor:
    """Return λ ≥ 0, float64[m], of the nearest change with Gᵀ Δ ≤ 0.

    It solves min ½ λᵀ K λ − vᵀ λ as non-negative least squares on columns of unit length.

    Args:
        gram: K, float64[m, m].
        alignment: v, float64[m].
        basis: float64[m, r], an orthonormal basis of the columns.
    """
    target = basis.T @ alignment
    size = float(target.norm())
    if not (alignment > 0).any() or size == 0:
        return torch.zeros_like(alignment)
    units = gram.diagonal().clamp(min=1e-300).rsqrt() * (gram.diagonal() > 0)
    solution = nnls((basis.T @ gram * units).numpy(), (target / size).numpy())[0]
    return torch.from_numpy(solution) * units * size


def uncovered_share(gram: Tensor) -> float:
    """Return |z − Q Qᵀ z| / |z| of the newest column: the share that the history does not hold."""
    older = orthonormal_basis(gram[1:, 1:])
    if not gram[0, 0] > 0:
        return 0.0
    return max(0.0, 1 - float((older.T @ gram[1:, 0]).square().sum() / gram[0, 0])) ** 0.5
