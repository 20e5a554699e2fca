"""Reading the model outside a step: losses of any rows of any role, their gradient, and their slopes along a direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import get_total_norm

from unremember.data.split import Role, Row, Split
from unremember.registry import losses
from unremember.tasks.protocol import Need, Task

BATCH = 64
STEP = 1e-2
"""Length of the move that a central difference makes: float32 losses still tell its two ends apart."""

Direction = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class GradientProbe:
    """Rows are int64[n] of a role; results are in their order. ``loss`` is any loss that reads no reference.

    A loss that is summed over tokens is divided by the row's own answer tokens: one mean a row, whatever its length.
    Only weights that may move (``requires_grad``) count.
    """

    model: Any
    task: Task
    split: Split

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def gradient(self, role: str, rows: np.ndarray, loss: Any = None) -> dict[str, Tensor]:
        """The gradient of the rows' mean loss, by name of the weight: one backward over the rows."""
        weights = self.weights
        total = {name: torch.zeros_like(p) for name, p in weights.items()}
        for _, losses_of in self.batches(role, rows, loss):
            parts = torch.autograd.grad(
                losses_of(self.model).sum() / len(rows), list(weights.values()), allow_unused=True
            )
            for name, part in zip(weights, parts):
                total[name] += 0.0 if part is None else part
        return total

    def slopes(self, direction: Direction, role: str, rows: np.ndarray, loss: Any = None) -> np.ndarray:
        """float64[n]: ⟨gradient of each row's loss, direction⟩ from one forward-mode pass, with no gradient of any row.

        Where the model's parts have no forward mode: central differences, two plain forwards.
        """
        try:
            return self.each(role, rows, loss, lambda losses_of: tangent(self.model, direction, losses_of))
        except NotImplementedError:
            return self.differences(direction, role, rows, loss)

    def losses(self, role: str, rows: np.ndarray, loss: Any = None) -> np.ndarray:
        """float64[n]: the loss of each row."""
        return self.each(role, rows, loss, lambda losses_of: losses_of(self.model))

    def mean_logprobs(self, rows: Sequence[Row]) -> np.ndarray:
        """float64[n]: the mean log-probability of an answer token of each row; the rows need not be of the split."""
        return -dataclasses.replace(self, split=Split({"read": Role("read", rows)})).losses(
            "read", np.arange(len(rows))
        )

    def differences(self, direction: Direction, role: str, rows: np.ndarray, loss: Any = None) -> np.ndarray:
        """float64[n]: the slopes by central differences; weights come back bit for bit."""
        weights = self.weights
        size = float(get_total_norm(direction.values()))
        if size == 0:
            return np.zeros(len(rows))
        held, ends = {name: p.detach().clone() for name, p in weights.items()}, []
        with torch.no_grad():
            for sign in (1, -1):
                for name, p in weights.items():
                    p.copy_(held[name] + sign * STEP / size * direction[name])
                ends.append(self.losses(role, rows, loss))
            for name, p in weights.items():
                p.copy_(held[name])
        return (ends[0] - ends[1]) / (2 * STEP) * size

    def lengths(self, role: str, rows: np.ndarray, loss: Any = None) -> np.ndarray:
        """float64[n]: the norm of each row's own gradient. Takes one backward a row."""
        grads = (self.gradient(role, rows[i : i + 1], loss).values() for i in range(len(rows)))
        return np.array([float(get_total_norm(grad)) for grad in grads])

    @torch.no_grad()
    def states(self, role: str, rows: np.ndarray) -> Tensor:
        """Tensor[n, D]: the mean over the answer's tokens of the last block's output."""
        need = Need("answer", "hidden", -1)
        data = self.task.encode(self.split, role, ["answer"])
        parts = np.split(rows, range(BATCH, len(rows), BATCH))
        return torch.cat(
            [
                self.task.forward(self.model, {role: (data, part)}, {role: [need]})[role].read(need).mean()
                for part in parts
            ]
        )

    def each(
        self, role: str, rows: np.ndarray, loss: Any, read: Callable[[Callable[[Any], Tensor]], Tensor]
    ) -> np.ndarray:
        """float64[n]: ``read`` of each batch, put in the order of the rows."""
        out = np.zeros(len(rows))
        with torch.no_grad():
            for at, losses_of in self.batches(role, rows, loss):
                out[at] = read(losses_of).double().cpu().numpy()
        return out

    def batches(
        self, role: str, rows: np.ndarray, loss: Any
    ) -> Iterator[tuple[np.ndarray, Callable[[Any], Tensor]]]:
        """(positions in ``rows``, model → Tensor[B] of their losses), rows of like size together."""
        made = losses.make(loss or self.task.training_loss)
        data = self.task.encode(self.split, role, sorted({need.text for need in made.needs}))
        work, counts = self.task.sizes(data, made.needs[0].text)
        order = np.argsort(work[rows], kind="stable")
        for at in np.split(order, range(BATCH, len(order), BATCH)):

            def losses_of(model: Any, chosen: np.ndarray = rows[at]) -> Tensor:
                view = self.task.forward(model, {role: (data, chosen)}, {role: made.needs})[role]
                values, _ = made.apply(view, view, {})
                return values / torch.from_numpy(counts[chosen]).to(values) if made.per == "token" else values

            yield at, losses_of


class Whole(nn.Module):
    """A model whose weights can be swapped while any function reads it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, read: Callable[[Any], Tensor]) -> Tensor:
        return read(self.model)


def tangent(model: Any, direction: Direction, losses_of: Callable[[Any], Tensor]) -> Tensor:
    """Tensor[B]: the derivative of the losses as the weights move along ``direction``. Fused attention has none."""
    weights = dict(model.named_parameters())
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        moving = {
            f"model.{name}": forward_ad.make_dual(weights[name].detach(), along)
            for name, along in direction.items()
        }
        values = forward_ad.unpack_dual(torch.func.functional_call(Whole(model), moving, (losses_of,)))
        return torch.zeros_like(values.primal) if values.tangent is None else values.tangent
