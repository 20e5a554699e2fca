"""The micro-world learned and unlearned: what the acceptance tests of the blends share."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alone import Alone
from unremember.data.split import Split
from unremember.engine import loop
from unremember.engine.blends import PlainBlend
from unremember.engine.losses.classification import CrossEntropy
from unremember.engine.recipe import Recipe
from unremember.engine.samplings import Batch, Draw, PlainSampling
from unremember.engine.samplings.paired import Paired
from unremember.engine.seams import Context, State, Term
from unremember.engine.selections.all import All
from unremember.engine.settings import Settings
from unremember.engine.step import StepContext
from unremember.tasks.image import ImageTask
from unremember.worlds.micro import MicroWorld, micro_net, micro_world

UNLEARN = (Term("forget", CrossEntropy(-1.0)), Term("retain", CrossEntropy()))


@functools.cache
def learned(overlap: float, seed: int, steps: int) -> tuple[MicroWorld, Split, nn.Module]:
    """The world, its split, and a net after ``steps`` of Adam at 3e-3 on random batches of 64 facts. Copy
    the net."""
    world, net = micro_world(overlap, seed), micro_net(seed)
    optimizer, rng = torch.optim.Adam(net.parameters(), lr=3e-3), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(world.labels), (64,), generator=rng)
        optimizer.zero_grad()
        F.cross_entropy(net(world.inputs[rows]), world.labels[rows]).backward()
        optimizer.step()
    return world, world.split(), net


@torch.no_grad()
def accuracy(net: nn.Module, world: MicroWorld, forget: bool) -> float:
    rows = world.forget if forget else ~world.forget
    return float((net(world.inputs[rows]).argmax(1) == world.labels[rows]).double().mean())


@torch.no_grad()
def losses(net: nn.Module, world: MicroWorld) -> tuple[float, float]:
    """Mean cross-entropy of the forget facts and of the retain facts."""
    per = F.cross_entropy(net(world.inputs), world.labels, reduction="none")
    return float(per[world.forget].mean()), float(per[~world.forget].mean())


def unlearn(
    overlap: float,
    seed: int,
    blend: Any,
    until: float = 0.0,
    lr: float = 0.1,
    steps: int = 400,
    trained: int = 600,
    each: Callable[[Any, int], Any] | None = None,
    **more: Any,
) -> tuple[nn.Module, MicroWorld, int]:
    """Run a blend on the learned net until the forget accuracy is ``until``: the net, its world, the steps
    taken."""
    world, split, net = learned(overlap, seed, trained)
    taken = 0

    def watch(model: Any, step: int) -> bool:
        nonlocal taken
        taken = step
        if each:
            each(model, step)
        return accuracy(model, world, forget=True) <= until

    recipe = Recipe(more.pop("terms", UNLEARN), blend, more.pop("sampling", Paired()), All())
    settings = Settings(
        **{
            "lr": lr,
            "batch_size": 24,
            "weight_decay": 0.0,
            "warmup": 0.0,
            "schedule": "constant",
            "max_steps": steps,
            "seed": seed,
            **more,
        }
    )
    net = loop.run_recipe(
        copy.deepcopy(net), ImageTask(), split, recipe, settings, watch=watch, every=1, quiet=True
    )
    return net, world, taken


@dataclasses.dataclass(frozen=True)
class Everything(PlainSampling):
    """Every row of every role in every step."""

    def steps_per_epoch(self, context: Context) -> int:
        return 1

    def apply(self, context: Context, state: State) -> tuple[Batch, State]:
        return {role: Draw.of(np.arange(len(keys))) for role, keys in context.keys.items()}, state


@dataclasses.dataclass(frozen=True)
class Descent(PlainBlend):
    """A blend's gradient by plain gradient descent at the run's rate, clipped to norm 1, with the blend's
    last word."""

    inner: Any
    raw: ClassVar[bool] = True

    @property
    def corrects(self) -> bool:  # type: ignore[override]
        return self.inner.corrects

    def init(self, context: Context) -> State:
        return self.inner.init(context)

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        gradient, state = self.inner.apply(step, state)
        size = float(torch.nn.utils.get_total_norm(gradient))
        return [-step.lr / max(1.0, size) * g for g in gradient], state

    def correct(self, change: list[Tensor], step: StepContext, state: State) -> tuple[list[Tensor], State]:
        return self.inner.correct(change, step, state)


class Fixed(Alone):
    """Answers what a blend asks from gradients and denominators that are already there."""

    def __init__(self, gradients: Mapping[str, Sequence[Tensor]], **more: Any) -> None:
        self.given, self.roles, self.notes, self.lr, self.ended = gradients, tuple(gradients), {}, 1.0, False
        self.denominators = [torch.ones_like(g) for g in next(iter(gradients.values()))]
        self.__dict__ |= more

    def gradients(self, *roles: str) -> dict[str, list[Tensor]]:
        return {role: list(self.given[role]) for role in roles or self.roles}

    def note(self, **figures: float) -> None:
        self.notes |= figures

    def end(self) -> None:
        self.ended = True


@dataclasses.dataclass(frozen=True)
class Watched(PlainBlend):
    """A blend, its ``notes``, and the ``harm`` of its realised changes: cos(retain gradient, change).

    With ``finite`` also the ``rise`` of the retain loss on the batch of the step.
    """

    inner: Any
    finite: bool = False
    harm: list[float] = dataclasses.field(default_factory=list)
    rise: list[float] = dataclasses.field(default_factory=list)
    notes: list[dict[str, float]] = dataclasses.field(default_factory=list)
    corrects: ClassVar[bool] = True

    @property
    def raw(self) -> bool:  # type: ignore[override]
        return self.inner.raw

    def init(self, context: Context) -> State:
        return self.inner.init(context)

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        step.seen = step.gradients("retain")["retain"]  # type: ignore[attr-defined]
        return self.inner.apply(step, state)

    def correct(self, change: list[Tensor], step: StepContext, state: State) -> tuple[list[Tensor], State]:
        made, state = self.inner.correct(change, step, state) if self.inner.corrects else (change, state)
        delta, gradient = (torch.cat([part.flatten() for part in parts]) for parts in (made, step.seen))  # type: ignore[attr-defined]
        self.harm.append(float(F.cosine_similarity(delta, gradient, dim=0)))
        if self.finite:
            before, after = (
                step.losses("retain", displacement=[m * s - c for m, c in zip(made, change)])["retain"]
                for s in (0, 1)
            )
            self.rise.append(after - before)
        self.notes.append({name.removeprefix("blend/"): value for name, value in step.notes.items()})
        return made, state


def passes(blend: Any, steps: int = 4) -> tuple[float, float]:
    """Forwards and backwards of a run, a step; each backward goes through the whole net."""
    _, split, net = learned(0.9, 0, 30)
    net, count = copy.deepcopy(net), {"forward": 0, "backward": 0}

    def hook(module: nn.Module, given: Any, out: Tensor) -> None:
        count["forward"] += 1
        if out.requires_grad:
            out.register_hook(lambda _: count.update(backward=count["backward"] + 1))

    net.register_forward_hook(hook)
    settings = Settings(lr=1e-3, batch_size=24, max_steps=steps)
    loop.run_recipe(net, ImageTask(), split, Recipe(UNLEARN, blend, Paired(), All()), settings, quiet=True)
    return count["forward"] / steps, count["backward"] / steps


def goes_on_exactly(blend: Any, folder: Path, lr: float) -> bool:
    """A run that is stopped after three of six steps and called again ends at an undisturbed run's weights,
    bit for bit."""
    _, split, net = learned(0.9, 0, 30)
    settings = Settings(lr=lr, batch_size=8, max_steps=6)

    def stop(model: Any, step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    def run(where: Path, watch: Any = None) -> nn.Module:
        recipe = Recipe(UNLEARN, blend, Paired(), All())
        return loop.run_recipe(
            copy.deepcopy(net), ImageTask(), split, recipe, settings, where, watch, every=1, quiet=True
        )

    whole = run(folder / "whole")
    try:
        run(folder / "cut", stop)
    except KeyboardInterrupt:
        cut = run(folder / "cut")
    return all(
        torch.equal(a, b) and not torch.equal(a, c)
        for a, b, c in zip(whole.parameters(), cut.parameters(), net.parameters())
    )
