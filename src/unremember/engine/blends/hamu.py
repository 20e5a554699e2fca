"""HAMU, hardness-aware unlearning: the least damaging step that still forgets a set amount."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from unremember.engine.blends import PlainBlend, forget_and_retain_gradients
from unremember.engine.seams import Context, State
from unremember.engine.step import StepContext
from unremember.errors import ConfigError, did_you_mean
from unremember.registry import blends

Variant = Literal["q", "u"]
Constraint = Literal["relative", "absolute"]
Granularity = Literal["tensor", "layer", "global"]
OnInfeasible = Literal["clip", "stop"]

_CLIPPED_RATIO = 0.95
"""The ratio c that an infeasible absolute constraint is clipped to."""


@blends.register(
    "hamu",
    paper="How Hard Can It Be? Hardness-Aware Multi-Objective Unlearning",
    arxiv="2606.02119",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class HAMU(PlainBlend):
    """Take, for every block of weights, the step that forgets by enough and damages what is kept least.

    x is the gradient of what is to be kept (all retain roles), y that of the forget roles' loss, which
    forgetting lowers. Of all steps of length lr · |x| that lower y by enough, HAMU takes the one that lowers
    x most. With the hardness r = cos(x, −y):

    - r ≤ −c, *direct*: Δ = −lr · x, which already lowers y by enough;
    - else, *rectified*: Δ = lr · |x| · (−c · unit(y) − √(1 − c²) · unit(x's part orthogonal to y)); damage is
      unavoidable iff r > √(1 − c²).

    The change goes to the weights as it is, without Adam, momentum or decay, so ``lr`` is that of gradient
    descent (0.02 to 0.2 for a small net). The log has ``cosine``, ``damaged`` (share of blocks), ``stop``,
    and the ``forget`` and ``retain`` change of the losses to first order. A recipe without retain roles has
    nothing to trade: plain descent. So it is where x is 0 everywhere (a retain loss that starts at its
    minimum).

    Args:
        variant: ``q`` as above; ``u`` swaps x and y: forget most while the retain loss falls by enough.
        constraint: ``relative`` sets c to ``amount`` in [0, 1). ``absolute``, the paper's, asks a fall of y
            by Q = ``amount`` · lr, spread over the blocks by |x| |y|: c = amount / Σ |x| |y|.
        amount: How much to forget; the paper's absolute amount is 0.5.
        granularity: A block is a ``tensor`` (the authors' code), a ``layer`` or all weights (``global``).
        max_grad_norm: Norm to which each gradient is clipped first (0: off).
        on_infeasible: Beyond c = 1 no step exists, as on any well memorised forget set at the start. ``clip``
            takes c = 0.95; ``stop``, the authors', ends the run.
        stop: End the run after ``patience`` steps in a row that ask for more than can be had without damage.
        patience: Steps in a row that meet the stop rule.
        as_published_code: Use the authors' budget in the stop rule, which also stops at the easiest steps.
    """

    variant: Variant = "q"
    constraint: Constraint = "relative"
    amount: float = 0.3
    granularity: Granularity = "tensor"
    max_grad_norm: float = 1.0
    on_infeasible: OnInfeasible = "clip"
    stop: bool = False
    patience: int = 5
    as_published_code: bool = False
    raw: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, choices in (
            ("variant", Variant),
            ("constraint", Constraint),
            ("granularity", Granularity),
            ("on_infeasible", OnInfeasible),
        ):
            value, known = getattr(self, name), get_args(choices)
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}: {did_you_mean(str(value), known)}")
        if not self.amount >= 0 or (self.constraint == "relative" and self.amount >= 1):
            raise ConfigError(
                f"amount={self.amount}: "
                "a relative constraint is 0 or above and below 1, an absolute one 0 or above"
            )
        if not self.max_grad_norm >= 0 or not self.patience >= 1:
            raise ConfigError(
                f"max_grad_norm={self.max_grad_norm} must be 0 or above "
                f"and patience={self.patience} 1 or above"
            )

    def init(self, context: Context) -> State:
        """Start the counts, and number the blocks where they are layers."""
        state: State = {"steps": 0, "hits": 0, "clipped": 0, "direct": 0, "rectified": 0, "cosine": 0.0}
        if self.granularity == "layer":
            moving = [name for name, p in context.model.named_parameters() if p.requires_grad]
            state["blocks"] = layer_blocks(moving)
        return state

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        """Return the change of the weights."""
        forget, by_role = forget_and_retain_gradients(step)
        if not by_role:
            update = [-step.lr * g for g in self.clip(step, forget)[0]]
            return update, {**state, "steps": state["steps"] + 1}
        # 1. Clip both gradients.
        forget, forget_factor = self.clip(step, forget)
        retain, retain_factor = self.clip(step, [torch.stack(parts).sum(0) for parts in zip(*by_role)])
        # 2. HAMU-Q keeps retain and lowers forget; its dual, HAMU-U, is the same problem with swapped inputs.
        x, y = (retain, forget) if self.variant == "q" else (forget, retain)
        # 3. Three inner products a block decide everything.
        blocks = self.blocks(state, len(x)).to(x[0].device)
        products = step.summed(block_products(x, y, blocks))
        solution = solve_blocks(products, self.constraint, self.amount, x[0].dtype)
        # 4. The step of each block, direct or rectified: lr (a · x + b · y).
        a, b = solution.x_coefficient[blocks], solution.y_coefficient[blocks]
        update = [step.lr * (ai * xi + bi * yi) for ai, bi, xi, yi in zip(a, b, x, y)]
        # 5. What it says of hardness, and the stop rule.
        figures = self.figures(step, solution, forget_factor, retain_factor)
        step.note(**figures)
        state = updated_counts(state, figures, len(solution.direct))
        impossible = figures["clipped"] and self.on_infeasible == "stop"
        if (self.stop and state["hits"] >= self.patience) or impossible:
            step.end()
            return [torch.zeros_like(part) for part in update], state
        return update, state

    def clip(self, step: StepContext, gradient: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the gradient at a norm of at most ``max_grad_norm``, and the factor that takes it there."""
        norm = step.norm(gradient)
        factor = torch.ones_like(norm)
        if self.max_grad_norm:
            factor = (self.max_grad_norm / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1.0)
        return [factor * g for g in gradient], factor

    def blocks(self, state: State, count: int) -> Tensor:
        """Return int64[count], the block of each weight."""
        if self.granularity == "layer":
            return state["blocks"]
        return torch.arange(count) if self.granularity == "tensor" else torch.zeros(count, dtype=torch.int64)

    def figures(
        self, step: StepContext, solution: BlockSolution, forget_factor: Tensor, retain_factor: Tensor
    ) -> dict[str, float]:
        """Return what is logged; ``forget`` and ``retain`` are changes of the unclipped losses."""
        forget_fall, retain_fall = solution.y_fall, solution.x_fall
        if self.variant == "u":
            forget_fall, retain_fall = retain_fall, forget_fall
        budget = solution.published_budget if self.as_published_code else solution.undamaged_budget
        figures = {
            "cosine": solution.cosine,
            "ratio": solution.ratio,
            "demand": step.lr * solution.demand,
            "damaged": solution.damaged.double().mean(),
            "forget": step.lr * forget_fall.sum() / forget_factor,
            "retain": -step.lr * retain_fall.sum() / retain_factor,
            "stop": solution.demand > budget.sum(),
            "clipped": solution.infeasible,
            "direct": solution.direct.double().mean(),
        }
        values = torch.stack([value.double() for value in figures.values()])  # one transfer from the device
        return dict(zip(figures, values.tolist()))


def updated_counts(state: State, figures: dict[str, float], blocks: int) -> State:
    """Return the state after a step over so many blocks: the counts, and the mean cosine of all steps."""
    steps, direct = state["steps"] + 1, round(figures["direct"] * blocks)
    return {
        **state,
        "steps": steps,
        "hits": state["hits"] + 1 if figures["stop"] else 0,
        "clipped": state["clipped"] + int(figures["clipped"]),
        "direct": state["direct"] + direct,
        "rectified": state["rectified"] + blocks - direct,
        "cosine": state["cosine"] + (figures["cosine"] - state["cosine"]) / steps,
    }


@dataclasses.dataclass(frozen=True)
class BlockSolution:
    """The solution of the step problem at lr = 1, block by block, and what it says of hardness.

    Args:
        x_coefficient: float64[B]: the step is ``x_coefficient`` · x + ``y_coefficient`` · y.
        y_coefficient: float64[B].
        x_fall: float64[B], how far x's loss falls to first order.
        y_fall: float64[B], how far y's loss falls to first order.
        undamaged_budget: float64[B], the most that y's loss can fall without raising x's.
        published_budget: float64[B], the same by the authors' formula.
        direct: bool[B], whether the block descends on x alone.
        damaged: bool[B], whether x's loss must rise.
        cosine: r = cos(x, −y) over all blocks.
        ratio: c, the share of the possible fall of y that is asked for.
        demand: The fall of y that is asked for.
        infeasible: Whether that is more than is possible.
    """

    x_coefficient: Tensor
    y_coefficient: Tensor
    x_fall: Tensor
    y_fall: Tensor
    undamaged_budget: Tensor
    published_budget: Tensor
    direct: Tensor
    damaged: Tensor
    cosine: Tensor
    ratio: Tensor
    demand: Tensor
    infeasible: Tensor


def solve_blocks(
    products: Tensor, constraint: Constraint, amount: float, dtype: torch.dtype = torch.float64
) -> BlockSolution:
    """Solve the step problem of every block in closed form.

    Args:
        products: float64[B, 3]: x·x, y·y and x·y of each block.
        constraint: What ``amount`` is.
        amount: How far y is to fall.
        dtype: The type in which the products were summed: below its precision x and y count as colinear.
    """
    xx, yy, xy = products.unbind(1)
    lengths, no_retain = (xx * yy).sqrt(), xx.sum() == 0
    possible = lengths.sum()
    # 1. The common ratio c = Q / (lr · Σ |x| |y|): with radius lr |x| a block and Q spread by |x| |y|, every
    #    block has the same.
    demand = amount * possible if constraint == "relative" else torch.full_like(possible, amount)
    infeasible = demand > possible
    feasible_demand = torch.where(infeasible, _CLIPPED_RATIO * possible, demand)
    ratio = torch.where(possible > 0, feasible_demand / possible.clamp(min=1e-300), 0.0)
    complement = (1 - ratio**2).clamp(min=0).sqrt()
    # 2. The hardness r of each block, and whether descending on x alone already lowers y by enough.
    cosine = torch.where(lengths > 0, -xy / lengths.clamp(min=1e-300), 0.0).clamp(-1, 1)
    sine = (1 - cosine**2).sqrt()
    direct = (cosine <= -ratio) | (lengths == 0)
    # 3. Else the rectified step: −c along y, −√(1 − c²) along x's part orthogonal to y (none where colinear).
    apart = sine > 4 * torch.finfo(dtype).eps ** 0.5
    share = torch.where(apart, complement / sine.clamp(min=1e-300), 0.0)
    scale = torch.where(lengths > 0, xx / lengths.clamp(min=1e-300), 0.0)
    rectified_y = -scale * (ratio + share * cosine)
    rectified_fall = xx * (torch.where(apart, complement * sine, 0.0) - ratio * cosine)
    return BlockSolution(
        x_coefficient=torch.where(direct, -1.0, -share),
        y_coefficient=torch.where(no_retain, -1.0, torch.where(direct, 0.0, rectified_y)),
        x_fall=torch.where(direct, xx, rectified_fall),
        y_fall=torch.where(no_retain, yy, torch.where(direct, xy, ratio * lengths)),
        undamaged_budget=torch.where(cosine > 0, lengths * sine, lengths),
        published_budget=lengths * sine,
        direct=direct,
        damaged=~direct & (cosine > complement),
        cosine=-xy.sum() / (xx.sum() * yy.sum()).sqrt().clamp(min=1e-300),
        ratio=ratio,
        demand=demand,
        infeasible=infeasible,
    )


def block_products(x: Sequence[Tensor], y: Sequence[Tensor], blocks: Tensor) -> Tensor:
    """Return float64[B, 3]: x·x, y·y and x·y of each block."""
    by_weight = [
        torch.stack([torch.dot(p.flatten(), q.flatten()) for p, q in ((a, a), (b, b), (a, b))])
        for a, b in zip(x, y)
    ]
    products = torch.stack(by_weight).double()
    return products.new_zeros(len(blocks.unique()), 3).index_add(0, blocks, products)


def layer_blocks(names: Sequence[str]) -> Tensor:
    """Return int64[n]: weights of the same numbered block, else of the same module, share a number."""
    owners = [
        numbered[0] if (numbered := re.match(r"(?:.*?\.)?\d+(?=\.)", name)) else name.rpartition(".")[0]
        for name in names
    ]
    order = {owner: i for i, owner in enumerate(dict.fromkeys(owners))}
    return torch.tensor([order[owner] for owner in owners])
