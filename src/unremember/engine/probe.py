"""The gradient probe: losses of any rows outside a step, their gradient, their slopes along a direction."""

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
from unremember.tasks.ragged import Ragged

_FORWARD_ROWS = 64
"""Rows of one forward."""
_DIFFERENCE = 1e-2
"""Length of the move that a central difference makes: float32 losses still tell its two ends apart."""

Direction = Mapping[str, Tensor]
"""A direction in the space of the weights: a tensor by name of the weight."""
RowLosses = Callable[[Any], Tensor]
"""Maps a model to the losses Tensor[B] of the rows of a batch."""


@dataclasses.dataclass(frozen=True)
class GradientProbe:
    """Read a model as its weights are now.

    ``rows`` are int64[n] of a role, and results are in their order. ``loss`` is any loss that reads no
    reference; None is the training loss of the task. A loss that is summed over tokens is divided by the
    row's own answer tokens: one mean a row, whatever its length. Only weights that may move
    (``requires_grad``) count.
    """

    model: Any
    task: Task
    split: Split

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The weights that may move, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def gradient(self, role: str, rows: np.ndarray, loss: Any = None) -> dict[str, Tensor]:
        """Return the gradient of the rows' mean loss, by name of the weight: one backward over the rows."""
        weights = self.weights
        total = {name: torch.zeros_like(p) for name, p in weights.items()}
        for _, row_losses in self.batches(role, rows, loss):
            mean = row_losses(self.model).sum() / len(rows)
            parts = torch.autograd.grad(mean, list(weights.values()), allow_unused=True)
            for name, part in zip(weights, parts):
                total[name] += 0.0 if part is None else part
        return total

    def slopes(self, direction: Direction, role: str, rows: np.ndarray, loss: Any = None) -> np.ndarray:
        """Return float64[n], ⟨gradient of each row's loss, direction⟩, from one forward-mode pass.

        Where the model's parts have no forward mode, central differences take two plain forwards.
        """

        def derivative(row_losses: RowLosses) -> Tensor:
            return forward_mode_derivative(self.model, direction, row_losses)

        try:
            return self.evaluate(role, rows, loss, derivative)
        except NotImplementedError:
            return self.differences(direction, role, rows, loss)

    def losses(self, role: str, rows: np.ndarray, loss: Any = None) -> np.ndarray:
        """Return float64[n], the loss of each row."""
        return self.evaluate(role, rows, loss, lambda row_losses: row_losses(self.model))

    def mean_logprobs(self, rows: Sequence[Row]) -> np.ndarray:
        """Return float64[n], the mean log-probability of an answer token of each row, of the split or not."""
        probe = dataclasses.replace(self, split=Split({"probed": Role("probed", rows)}))
        return -probe.losses("probed", np.arange(len(rows)))

    def differences(self, direction: Direction, role: str, rows: np.ndarray, loss: Any = None) -> np.ndarray:
        """Return float64[n], the slopes by central differences. The weights come back bit for bit."""
        weights = self.weights
        size = float(get_total_norm(direction.values()))
        if size == 0:
            return np.zeros(len(rows))
        held, ends = {name: p.detach().clone() for name, p in weights.items()}, []
        with torch.no_grad():
            for sign in (1, -1):
                for name, p in weights.items():
                    p.copy_(held[name] + sign * _DIFFERENCE / size * direction[name])
                ends.append(self.losses(role, rows, loss))
            for name, p in weights.items():
                p.copy_(held[name])
        return (ends[0] - ends[1]) / (2 * _DIFFERENCE) * size

    def lengths(self, role: str, rows: np.ndarray, loss: Any = None) -> np.ndarray:
        """Return float64[n], the norm of each row's own gradient; one backward a row."""
        gradients = (self.gradient(role, rows[i : i + 1], loss).values() for i in range(len(rows)))
        return np.array([float(get_total_norm(gradient)) for gradient in gradients])

    @torch.no_grad()
    def read(self, role: str, rows: np.ndarray, need: Need) -> Any:
        """Return one quantity of some rows: Ragged over answer tokens, or Tensor[n, …]."""
        data = self.task.encode(self.split, role, [need.text])
        batches = np.split(rows, range(_FORWARD_ROWS, len(rows), _FORWARD_ROWS))
        parts = [
            self.task.forward(self.model, {role: (data, batch)}, {role: [need]})[role].read(need)
            for batch in batches
        ]
        if not isinstance(parts[0], Ragged):
            return torch.cat(parts)
        return Ragged(torch.cat([part.values for part in parts]), torch.cat([part.counts for part in parts]))

    def evaluate(
        self, role: str, rows: np.ndarray, loss: Any, read: Callable[[RowLosses], Tensor]
    ) -> np.ndarray:
        """Return float64[n], ``read`` of each batch, put in the order of the rows."""
        values = np.zeros(len(rows))
        with torch.no_grad():
            for positions, row_losses in self.batches(role, rows, loss):
                values[positions] = read(row_losses).double().cpu().numpy()
        return values

    def batches(self, role: str, rows: np.ndarray, loss: Any) -> Iterator[tuple[np.ndarray, RowLosses]]:
        """Yield positions in ``rows`` and the losses of these rows as a function of the model, by size."""
        built = losses.make(loss or self.task.training_loss)
        data = self.task.encode(self.split, role, sorted({need.text for need in built.needs}))
        work, counts = self.task.sizes(data, built.needs[0].text)
        order = np.argsort(work[rows], kind="stable")
        for positions in np.split(order, range(_FORWARD_ROWS, len(order), _FORWARD_ROWS)):

            def row_losses(model: Any, batch: np.ndarray = rows[positions]) -> Tensor:
                view = self.task.forward(model, {role: (data, batch)}, {role: built.needs})[role]
                values, _ = built.apply(view, view, {})
                return values / torch.from_numpy(counts[batch]).to(values) if built.per == "token" else values

            yield positions, row_losses


class ModelReader(nn.Module):
    """A module whose forward is any function of a model, whose weights a caller may swap or shard."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, read: Callable[[Any], Tensor]) -> Tensor:
        """Return what ``read`` makes of the model."""
        return read(self.model)


def forward_mode_derivative(model: Any, direction: Direction, row_losses: RowLosses) -> Tensor:
    """Return Tensor[B], the derivative of the losses as the weights move along ``direction``.

    Fused attention has no forward mode, so plain attention is used.
    """
    weights = dict(model.named_parameters())
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        duals = {
            f"model.{name}": forward_ad.make_dual(weights[name].detach(), forward_mode_derivative)
            for name, forward_mode_derivative in direction.items()
        }
        values = forward_ad.unpack_dual(torch.func.functional_call(ModelReader(model), duals, (row_losses,)))
        return torch.zeros_like(values.primal) if values.tangent is None else values.tangent
