"""One job over several processes: how they share work and agree on values.

``accelerate`` says how many processes there are. With one, the usual case, every function is the identity.
Models, losses and blends know nothing of this.
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

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Value = TypeVar("_Value")


def process_state() -> PartialState:
    """Return the rank of this process, the number of processes, and this process's device."""
    return PartialState(cpu=_uses_cpu())


@functools.cache
def _uses_cpu() -> bool:
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def is_main_process() -> bool:
    """Return whether this process is the one that writes files and shows progress."""
    return bool(process_state().is_main_process)


def wait_for_all_processes() -> None:
    """Wait until every process has come this far, so that what the main process wrote can be read."""
    process_state().wait_for_everyone()


def value_of_main_process(value: _Value) -> _Value:
    """Return the main process's value on every process.

    Use it for values that a clock, a disk or rounding could make different from process to process.
    """
    return broadcast_object_list([value])[0] if process_state().num_processes > 1 else value


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of all processes' tensors, on the device of the tensor that was given."""
    if process_state().num_processes == 1:
        return tensor
    summed = tensor.to(process_state().device, copy=True)
    dist.all_reduce(summed)
    return summed.to(tensor.device)


def true_on_any_process(flag: bool) -> bool:
    """Return whether the flag is true on at least one process."""
    return bool(sum_over_processes(torch.tensor(int(flag)))) if process_state().num_processes > 1 else flag


def check_processes_agree(value: Any) -> None:
    """Raise DataError, on all processes, where one process has another value than the main one."""
    if true_on_any_process(value_of_main_process(value) != value):
        raise DataError(
            "the processes started with different models, data or settings: "
            "give all of them the same command, files and seed"
        )


def map_over_processes(items: Sequence[_Item], work: Callable[[_Item], _Result]) -> Iterator[_Result]:
    """Yield ``work`` of every item, in order and on every process; one process works on each item.

    A process works on a whole item, so the results equal those of a single process bit for bit.
    """
    count, rank = process_state().num_processes, process_state().process_index
    for start in range(0, len(items), count):
        yield from gather_object([work(item) for item in items[start + rank : start + count][:1]])


def parts_of_this_process(parts: Sequence[Any]) -> list[tuple[Any, bool]]:
    """Return this process's part of every round, and whether it counts.

    Args:
        parts: One part a process for each round, a whole number of rounds. ``None`` fills a round up.

    Returns:
        (part, counts) for each round. A process whose part is ``None`` repeats the first part of the round,
        which then does not count: all processes run the same number of forwards.
    """
    count, rank = process_state().num_processes, process_state().process_index
    return [
        (parts[i - rank] if parts[i] is None else parts[i], parts[i] is not None)
        for i in range(rank, len(parts), count)
    ]


def move_to_device(model: Any) -> Any:
    """Return the model on this process's device; a quantised model stays where it was loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(process_state().device)
