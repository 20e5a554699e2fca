"""One job over several processes: who does which share, what all agree on, and the weights as each process holds them.

``accelerate`` says how many there are; one is the usual case, in which everything here is the identity. The model, the
losses and the blends know nothing of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from accelerate.utils.environment import parse_flag_from_env
from torch import Tensor

from unremember.engine.seams import Selected
from unremember.errors import ConfigError, DataError

Item = TypeVar("Item")
Made = TypeVar("Made")
Value = TypeVar("Value")
BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm
UNSUPPORTED = {DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM, DistributedType.XLA}


def world() -> PartialState:
    """Which process this is, of how many, and its device."""
    return PartialState(cpu=on_cpu())


@functools.cache
def on_cpu() -> bool:
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def main() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return bool(world().is_main_process)


def wait() -> None:
    """Go on when all processes are here: what the main one wrote is there."""
    world().wait_for_everyone()


def same(value: Value) -> Value:
    """The main process's value, on every process: for what a clock, a disk or a rounding could decide otherwise."""
    return broadcast_object_list([value])[0] if world().num_processes > 1 else value


def total(mine: Tensor) -> Tensor:
    """The sum of all processes' tensors."""
    if world().num_processes == 1:
        return mine
    summed = mine.to(world().device, copy=True)
    dist.all_reduce(summed)
    return summed.to(mine.device)


def anywhere(flag: bool) -> bool:
    """Whether the flag is set on any process."""
    return bool(total(torch.tensor(int(flag)))) if world().num_processes > 1 else flag


def agree(found: Any) -> None:
    """Raise DataError, on all processes, where one has not found what the main one has."""
    if anywhere(same(found) != found):
        raise DataError("the processes did not begin with the same model, data and settings: give all the same command, files and seed")


def spread(items: Sequence[Item], work: Callable[[Item], Made]) -> Iterator[Made]:
    """``work`` of every item, in their order and known to all processes; each item is worked on by one of them.

    An item is worked on whole, so the results are those of a single process bit for bit.
    """
    count, rank = world().num_processes, world().process_index
    for at in range(0, len(items), count):
        yield from gather_object([work(item) for item in items[at + rank : at + count][:1]])


def share(parts: Sequence[Any]) -> list[tuple[Any, bool]]:
    """This process's part of every round (one each), and whether it counts.

    ``None`` fills a round that is not full: who gets it repeats the round's first part and counts nothing, so that all
    processes run equally many forwards.
    """
    count, rank = world().num_processes, world().process_index
    return [(parts[at - rank] if parts[at] is None else parts[at], parts[at] is not None) for at in range(rank, len(parts), count)]


class Weights:
    """The weights that move (``parameters``) and their ``masks``, where every process holds the whole ``model``.

    Steps run through :meth:`forward`. Lists of tensors are aligned to ``names``.
    """

    def __init__(self, accelerator: Accelerator, model: Any, selected: Selected) -> None:
        self.accelerator, self.model, self.names = accelerator, model, list(selected.parameters)
        self.parameters: list[Any] = list(selected.parameters.values())
        self.masks = [same(selected.masks[name]).to(p.device) if name in selected.masks else None for name, p in selected.parameters.items()]

    def forward(self, read: Callable[[Any], Made]) -> Made:
        """What ``read`` makes of the model; tensors that will be differentiated are among what it returns."""
        return read(self.model)

    def gradients(self) -> list[Tensor | None]:
        """What the backwards of all processes left on each weight, added up; None where none reached it."""
        found = [p.grad for p in self.parameters]
        if world().num_processes == 1:
            return found
        reached = total(torch.tensor([int(g is not None) for g in found])).tolist()
        whole = [(torch.zeros_like(p) if g is None else g.contiguous()) if there else None for p, g, there in zip(self.parameters, found, reached)]
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


def place(model: Any) -> Any:
    """The model on this process's device; a quantised one stays where it was loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(world().device)


def start(model: Any) -> Accelerator:
    """Join the other processes and move the model to this one's device. Raises ConfigError for what cannot run the loop."""
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED") or world().distributed_type in UNSUPPORTED:
        raise ConfigError("a step needs the gradient of every role on its own, which DeepSpeed, Megatron and XLA do not give: launch with FSDP2")
    place(model)
    return Accelerator()


def hold(accelerator: Accelerator, model: Any, selected: Selected) -> Weights:
    """The weights, sharded where ``accelerate`` was told to use FSDP, else whole in every process.

    Raises ConfigError where a layer reads the whole batch, of which a process has a share.
    """
    if world().num_processes == 1:
        return Weights(accelerator, model, selected)
    if any(isinstance(m, BATCH_NORM) and any(p.requires_grad for p in m.parameters()) for m in model.modules()):
        raise ConfigError("batch normalisation reads the whole batch, of which a process has a share: train in one process, or freeze it")
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return Weights(accelerator, model, selected)
    from unremember.engine.sharded import Sharded

    return Sharded(accelerator, model, selected)
