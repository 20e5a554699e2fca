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
from unremember.processes import move_to_device, process_state, sum_over_processes, value_of_main_process

Read = TypeVar("Read")
_UNSUPPORTED = {DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM, DistributedType.XLA}


def join_processes(model: Any) -> Accelerator:
    """Join the other processes and move the model to this one's device.

    Raises ConfigError for what cannot run the loop.
    """
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED") or process_state().distributed_type in _UNSUPPORTED:
        raise ConfigError(
            "a step needs the gradient of each role on its own, which DeepSpeed, Megatron and XLA do not "
            "give: launch with FSDP2"
        )
    move_to_device(model)
    return Accelerator()


class Weights:
    """The weights that move (``parameters``) and their ``masks``; every process holds the whole ``model``.

    Steps run through ``forward``. Lists of tensors are aligned to ``names``.
    """

    def __init__(self, accelerator: Accelerator, model: Any, selected: Selected) -> None:
        self.accelerator, self.model, self.names = accelerator, model, list(selected.parameters)
        self.parameters: list[Any] = list(selected.parameters.values())
        self.masks = [
            value_of_main_process(selected.masks[name]).to(p.device) if name in selected.masks else None
            for name, p in selected.parameters.items()
        ]

    def forward(self, read: Callable[[Any], Read]) -> Read:
        """Return what ``read`` makes of the model; tensors to be differentiated are among what it returns."""
        return read(self.model)

    def gradients(self) -> list[Tensor | None]:
        """Return the gradient of each weight over all processes; None where no backward reached it."""
        local = [p.grad for p in self.parameters]
        if process_state().num_processes == 1:
            return local
        reached = sum_over_processes(torch.tensor([int(g is not None) for g in local])).tolist()
        summed = [
            (torch.zeros_like(p) if g is None else g.contiguous()) if anywhere else None
            for p, g, anywhere in zip(self.parameters, local, reached)
        ]
        for handle in [dist.all_reduce(g, async_op=True) for g in summed if g is not None]:
            handle.wait()
        return summed

    def summed(self, table: Tensor) -> Tensor:
        """Return sums over all entries of the weights, from those over the entries of this process."""
        return table

    def global_norm(self, norm: Tensor) -> Tensor:
        """Return the 2-norm over all entries, from that over the entries of this process."""
        return norm

    def gather(self, index: int, shard: Tensor) -> Tensor:
        """Return, on the main process, a whole tensor like weight ``index`` from its shards."""
        return shard

    def shard_of(self, index: int, tensor: Tensor) -> Tensor:
        """Return this process's shard of a whole tensor like weight ``index``."""
        return tensor

    def gather_vector(self, shard: Tensor) -> Tensor:
        """Return ``gather`` of a vector with an entry for every weight's every entry."""
        return shard

    def shard_of_vector(self, vector: Tensor) -> Tensor:
        """Return ``shard_of`` of such a vector."""
        return vector

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[Any]:
        """Yield the whole model with its present weights, in evaluation mode, to be read between steps."""
        self.model.eval()
        yield self.model
