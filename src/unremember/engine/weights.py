"""The weights that move, as each process holds them: whole in every process, or sharded (``sharded.py``)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType
from accelerate.utils.environment import parse_flag_from_env
from torch import Tensor

from unremember.engine.seams import Selected
from unremember.errors import ConfigError
from unremember.processes import place, same, total, world

Read = TypeVar("Read")
UNSUPPORTED = {DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM, DistributedType.XLA}


def start(model: Any) -> Accelerator:
    """Join the other processes and move the model to this one's device. Raises ConfigError for what cannot run the loop."""
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED") or world().distributed_type in UNSUPPORTED:
        raise ConfigError(
            "a step needs the gradient of every role on its own, which DeepSpeed, Megatron and XLA do not give: launch with FSDP2"
        )
    place(model)
    return Accelerator()


class Weights:
    """The weights that move (``parameters``) and their ``masks``, where every process holds the whole ``model``.

    Steps run through :meth:`forward`. Lists of tensors are aligned to ``names``.
    """

    def __init__(self, accelerator: Accelerator, model: Any, selected: Selected) -> None:
        self.accelerator, self.model, self.names = accelerator, model, list(selected.parameters)
        self.parameters: list[Any] = list(selected.parameters.values())
        self.masks = [
            same(selected.masks[name]).to(p.device) if name in selected.masks else None
            for name, p in selected.parameters.items()
        ]

    def forward(self, read: Callable[[Any], Read]) -> Read:
        """What ``read`` makes of the model; tensors that will be differentiated are among what it returns."""
        return read(self.model)

    def gradients(self) -> list[Tensor | None]:
        """What the backwards of all processes left on each weight, added up; None where none reached it."""
        found = [p.grad for p in self.parameters]
        if world().num_processes == 1:
            return found
        reached = total(torch.tensor([int(g is not None) for g in found])).tolist()
        whole = [
            (torch.zeros_like(p) if g is None else g.contiguous()) if there else None
            for p, g, there in zip(self.parameters, found, reached)
        ]
        for sent in [dist.all_reduce(g, async_op=True) for g in whole if g is not None]:
            sent.wait()
        return whole

    def summed(self, table: Tensor) -> Tensor:
        """Sums over the entries of weights, from those over the entries that this process holds."""
        return table

    def joined(self, norm: Tensor) -> Tensor:
        """The 2-norm over all entries, from that over the entries that this process holds."""
        return norm

    def full(self, at: int, mine: Tensor) -> Tensor:
        """On the main process: a tensor like weight ``at`` whole, from what each process holds of it."""
        return mine

    def own(self, at: int, whole: Tensor) -> Tensor:
        """What this process holds of a tensor like weight ``at``."""
        return whole

    def full_vector(self, mine: Tensor) -> Tensor:
        """:meth:`full` of a vector with an entry for every weight's every entry."""
        return mine

    def own_vector(self, whole: Tensor) -> Tensor:
        """:meth:`own` of such a vector."""
        return whole

    @contextlib.contextmanager
    def whole(self) -> Iterator[Any]:
        """The whole model as the weights are now, in evaluation mode, for whoever reads it between steps."""
        self.model.eval()
        yield self.model
