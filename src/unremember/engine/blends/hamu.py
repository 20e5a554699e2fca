"""HAMU, hardness-aware unlearning: the least damaging step that still forgets a set amount, and word of when there is none."""

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
from unremember.errors import ConfigError, nearest
from unremember.registry import blends

Variant = Literal["q", "u"]
Constraint = Literal["relative", "absolute"]
Granularity = Literal["tensor", "layer", "global"]
OnInfeasible = Literal["clip", "stop"]
CLIPPED = 0.95


@blends.register(
    "hamu",
    paper="How Hard Can It Be? Hardness-Aware Multi-Objective Unlearning",
    arxiv="2606.02119",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class HAMU(PlainBlend):
    """Of all steps of length lr · |x| that lower y by enough, the one that lowers x most, for every block of weights.

    x is the gradient of what is to be kept (all roles but the first), y that of the first role's loss, which forgetting
    lowers; ``variant="u"`` swaps them: forget most while the retain loss falls by enough. With r = cos(x, −y), the hardness:

    - r ≤ −c: Δ = −lr · x, which already lowers y by enough;
    - else Δ = lr · |x| · (−c · unit(y) − √(1 − c²) · unit(x's part orthogonal to y)); damage is unavoidable iff r > √(1 − c²).

    ``constraint="relative"`` sets c to ``amount`` in [0, 1). ``"absolute"`` asks a fall of y by Q = ``amount`` · lr (the
    paper's; 0.5 there), spread over the blocks by |x| |y|: c = amount / Σ |x| |y|. Beyond 1 no step exists, as on any well
    memorised forget set at the start: ``on_infeasible`` takes c = 0.95 (``clip``) or ends the run (``stop``, the authors').

    A block is a ``tensor`` (the authors' code), a ``layer`` or everything (``global``). Each gradient is first clipped to
    ``max_grad_norm`` (0: off). The change goes to the weights as it is, without Adam, momentum or decay, so ``lr`` is
    that of gradient descent (0.02 to 0.2 for a small net). ``stop`` ends the run after ``patience`` steps in a row that
    ask more than can be had without damage; ``as_published_code`` uses the authors' budget, which also stops at the
    easiest steps. The log has it all: ``cosine``, ``damaged`` (share of blocks), ``stop``, the ``forget`` and ``retain``
    change of the losses to first order. A recipe of one role has nothing to trade: plain descent, as where x is 0
    everywhere (a retain loss that starts at its minimum).
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
        for name, known in (
            ("variant", Variant),
            ("constraint", Constraint),
            ("granularity", Granularity),
            ("on_infeasible", OnInfeasible),
        ):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"unknown {name} {getattr(self, name)!r}: {nearest(str(getattr(self, name)), get_args(known))}"
                )
        if not self.amount >= 0 or (self.constraint == "relative" and self.amount >= 1):
            raise ConfigError(
                f"amount={self.amount}: a relative constraint is 0 or above and below 1, an absolute one 0 or above"
            )
        if not self.max_grad_norm >= 0 or not self.patience >= 1:
            raise ConfigError(
                f"max_grad_norm={self.max_grad_norm} must be 0 or above and patience={self.patience} 1 or above"
            )

    def init(self, context: Context) -> State:
        state: State = {"steps": 0, "hits": 0, "clipped": 0, "direct": 0, "rectified": 0, "cosine": 0.0}
        if self.granularity == "layer":
            state["blocks"] = layers(
                [name for name, p in context.model.named_parameters() if p.requires_grad]
            )
        return state

    def apply(self, measure: StepContext, state: State) -> tuple[list[Tensor], State]:
        forget, others = forget_and_retain_gradients(measure)
        if not others:
            return [-measure.lr * g for g in self.clip(measure, forget)[0]], {
                **state,
                "steps": state["steps"] + 1,
            }
        (forget, cut), (retain, trim) = (
            self.clip(measure, forget),
            self.clip(measure, [torch.stack(parts).sum(0) for parts in zip(*others)]),
        )
        x, y = (retain, forget) if self.variant == "q" else (forget, retain)
        blocks = self.blocks(state, len(x)).to(x[0].device)
        move = solve(measure.summed(totals(x, y, blocks)), self.constraint, self.amount, x[0].dtype)
        toward, along = move.toward[blocks], move.along[blocks]
        update = [measure.lr * (a * gx + b * gy) for a, b, gx, gy in zip(toward, along, x, y)]
        falls = {"q": (move.y_fall, move.x_fall), "u": (move.x_fall, move.y_fall)}[self.variant]
        found = {
            "cosine": move.cosine,
            "ratio": move.ratio,
            "demand": measure.lr * move.demand,
            "damaged": move.damaged.double().mean(),
            "forget": measure.lr * falls[0].sum() / cut,
            "retain": -measure.lr * falls[1].sum() / trim,
            "stop": move.demand > (move.published if self.as_published_code else move.free).sum(),
            "clipped": move.infeasible,
            "direct": move.direct.double().mean(),
        }
        figures = dict(zip(found, torch.stack([value.double() for value in found.values()]).tolist()))
        measure.note(**figures)
        state = self.counted(state, figures, len(move.direct))
        if (self.stop and state["hits"] >= self.patience) or (
            figures["clipped"] and self.on_infeasible == "stop"
        ):
            measure.end()
            return [torch.zeros_like(part) for part in update], state
        return update, state

    def clip(self, measure: StepContext, gradient: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The gradient at a norm of at most ``max_grad_norm``, and the factor it was multiplied with."""
        norm = measure.norm(gradient)
        factor = (
            (self.max_grad_norm / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1.0)
            if self.max_grad_norm
            else torch.ones_like(norm)
        )
        return [factor * g for g in gradient], factor

    def blocks(self, state: State, count: int) -> Tensor:
        """int64[count]: the block of each weight."""
        if self.granularity == "layer":
            return state["blocks"]
        return torch.arange(count) if self.granularity == "tensor" else torch.zeros(count, dtype=torch.int64)

    def counted(self, state: State, figures: dict[str, float], blocks: int) -> State:
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
class Move:
    """The step at lr = 1, block by block: ``toward`` · x + ``along`` · y, how far x and y fall, and what it says of hardness.

    ``free`` (``published``: by the authors' formula) is the most that y can fall without raising x; ``demand`` what is asked.
    """

    toward: Tensor
    along: Tensor
    x_fall: Tensor
    y_fall: Tensor
    free: Tensor
    published: Tensor
    direct: Tensor
    damaged: Tensor
    cosine: Tensor
    ratio: Tensor
    demand: Tensor
    infeasible: Tensor


def solve(table: Tensor, constraint: Constraint, amount: float, dtype: torch.dtype = torch.float64) -> Move:
    """The closed form over blocks from ``table`` float64[B, 3] of x·x, y·y, x·y; ``dtype`` is what they were summed in."""
    xx, yy, xy = table.unbind(1)
    both, still = (xx * yy).sqrt(), xx.sum() == 0
    spread = both.sum()
    asked = amount * spread if constraint == "relative" else torch.full_like(spread, amount)
    infeasible = asked > spread
    demand = torch.where(infeasible, CLIPPED * spread, asked)
    ratio = torch.where(spread > 0, demand / spread.clamp(min=1e-300), 0.0)
    lean = (1 - ratio**2).clamp(min=0).sqrt()
    cosine = torch.where(both > 0, -xy / both.clamp(min=1e-300), 0.0).clamp(-1, 1)
    sine = (1 - cosine**2).sqrt()
    direct = (cosine <= -ratio) | (both == 0)
    apart = sine > 4 * torch.finfo(dtype).eps ** 0.5
    share = torch.where(apart, lean / sine.clamp(min=1e-300), 0.0)
    scale = torch.where(both > 0, xx / both.clamp(min=1e-300), 0.0)
    return Move(
        toward=torch.where(direct, -1.0, -share),
        along=torch.where(still, -1.0, torch.where(direct, 0.0, -scale * (ratio + share * cosine))),
        x_fall=torch.where(direct, xx, xx * (torch.where(apart, lean * sine, 0.0) - ratio * cosine)),
        y_fall=torch.where(still, yy, torch.where(direct, xy, ratio * both)),
        free=torch.where(cosine > 0, both * sine, both),
        published=both * sine,
        direct=direct,
        damaged=~direct & (cosine > lean),
        cosine=-xy.sum() / (xx.sum() * yy.sum()).sqrt().clamp(min=1e-300),
        ratio=ratio,
        demand=asked,
        infeasible=infeasible,
    )


def totals(x: Sequence[Tensor], y: Sequence[Tensor], blocks: Tensor) -> Tensor:
    """float64[B, 3]: x·x, y·y and x·y of each block."""
    pairs = [
        torch.stack([torch.dot(p.flatten(), q.flatten()) for p, q in ((a, a), (b, b), (a, b))])
        for a, b in zip(x, y)
    ]
    table = torch.stack(pairs).double()
    return table.new_zeros(len(blocks.unique()), 3).index_add(0, blocks, table)


def layers(names: Sequence[str]) -> Tensor:
    """int64[n]: weights of the same numbered block, else of the same module, share a number."""
    owners = [
        found[0] if (found := re.match(r"(?:.*?\.)?\d+(?=\.)", name)) else name.rpartition(".")[0]
        for name in names
    ]
    order = {owner: i for i, owner in enumerate(dict.fromkeys(owners))}
    return torch.tensor([order[owner] for owner in owners])
