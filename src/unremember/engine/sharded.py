"""FSDP2: each process holds a shard of every weight, of its gradient and of the optimiser's moments."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unremember.engine.probe import ModelReader
from unremember.engine.seams import Selected
from unremember.engine.weights import Read, Weights
from unremember.errors import ConfigError, ModelError
from unremember.models import causal
from unremember.processes import is_main_process, sum_over_processes, process_state

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class Sharded(Weights):
    """Steps run on a sharded twin of the model; ``parameters`` are this process's shards, as plain tensors.

    Elementwise work on them needs no other process; a sum over entries is ``summed``. The model itself waits
    on the CPU and is brought up to date for whoever reads it whole: ``whole`` needs room for all weights, but
    for no gradients or moments.
    """

    def __init__(self, accelerator: Accelerator, model: Any, selected: Selected) -> None:
        super().__init__(accelerator, model, selected)
        self.original, self.moving = model.cpu(), self.parameters
        self.model = copy.deepcopy(model)
        mesh = init_device_mesh(process_state().device.type, (process_state().num_processes,))
        for block in gathered_blocks(self.model):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        self.root = ModelReader(self.model)
        fully_shard(self.root, mesh=mesh, reshard_after_forward=True)
        for module in self.root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        self.root(lambda _: None)  # the first forward settles where the shards lie
        named = dict(self.model.named_parameters())
        self.sharded: list[Any] = [named[name] for name in self.names]
        self.parameters = [nn.Parameter(p.to_local().detach()) for p in self.sharded]
        self.masks = [None if mask is None else self.shard_of(i, mask) for i, mask in enumerate(self.masks)]

    def forward(self, read: Callable[[Any], Read]) -> Read:
        return self.root(read)

    def gradients(self) -> list[Tensor | None]:
        gradients = [None if p.grad is None else p.grad.to_local() for p in self.sharded]
        for p in self.sharded:
            p.grad = None
        return gradients

    def summed(self, table: Tensor) -> Tensor:
        return sum_over_processes(table)

    def global_norm(self, norm: Tensor) -> Tensor:
        return sum_over_processes(norm.double().square()).sqrt().to(norm.dtype)

    def gather(self, index: int, shard: Tensor) -> Tensor:
        if shard.shape != self.parameters[index].shape:
            return shard
        like = self.sharded[index]
        whole = DTensor.from_local(
            shard, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        ).full_tensor()
        return whole.cpu() if is_main_process() else shard

    def shard_of(self, index: int, tensor: Tensor) -> Tensor:
        like = self.sharded[index]
        if tensor.shape != like.shape:
            return tensor
        sharded = distribute_tensor(
            tensor.contiguous(), like.device_mesh, like.placements, src_data_rank=None
        )
        return sharded.to_local()

    def gather_vector(self, shard: Tensor) -> Tensor:
        parts = shard.split([p.numel() for p in self.parameters])
        shaped = [part.view_as(p) for part, p in zip(parts, self.parameters)]
        return torch.cat([self.gather(index, part).flatten() for index, part in enumerate(shaped)])

    def shard_of_vector(self, vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in self.sharded])
        shaped = [part.view(p.shape) for part, p in zip(parts, self.sharded)]
        return torch.cat([self.shard_of(index, part).flatten() for index, part in enumerate(shaped)])

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[Any]:
        with torch.no_grad():
            for p, shard in zip(self.moving, self.sharded):
                p.copy_(shard.full_tensor())
        self.original.to(process_state().device).eval()
        try:
            yield self.original
        finally:
            self.original.cpu()


def gathered_blocks(model: Any) -> list[nn.Module]:
    """Return the modules that are gathered on their own: the decoder blocks, or none without such a list."""
    try:
        return list(causal.decoder_blocks(model))
    except ModelError:
        return []


def hold_weights(accelerator: Accelerator, model: Any, selected: Selected) -> Weights:
    """The weights, sharded where ``accelerate`` was told to use FSDP, else whole in every process.

    Raises ConfigError where a layer reads the whole batch, of which a process has a share.
    """
    if process_state().num_processes == 1:
        return Weights(accelerator, model, selected)
    if any(
        isinstance(m, _BATCH_NORM) and any(p.requires_grad for p in m.parameters()) for m in model.modules()
    ):
        raise ConfigError(
            "batch normalisation reads the whole batch, of which each process has a share: "
            "train in one process, or freeze it"
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return Weights(accelerator, model, selected)
    return Sharded(accelerator, model, selected)
