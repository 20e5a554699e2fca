"""One job over several processes: who does which share, and what all agree on.

``accelerate`` says how many there are; one is the usual case, in which everything here is the identity. The model, the
losses and the blends know nothing of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils.environment import parse_flag_from_env
from torch import Tensor

from unremember.errors import DataError

Item = TypeVar("Item")
Made = TypeVar("Made")
Value = TypeVar("Value")


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
        raise DataError(
            "the processes did not begin with the same model, data and settings: give all the same command, files and seed"
        )


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
    return [
        (parts[at - rank] if parts[at] is None else parts[at], parts[at] is not None)
        for at in range(rank, len(parts), count)
    ]


def place(model: Any) -> Any:
    """The model on this process's device; a quantised one stays where it was loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(world().device)
