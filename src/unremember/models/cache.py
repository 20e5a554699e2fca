"""Keys and values of a decoding batch, in place: adding a token or dropping a row copies nothing else."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """The keys and values of a layer, in memory that is allocated once.

    Args:
        room: How many tokens may follow the first forward.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.buffers: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add the states of further tokens and return all of them: [rows, heads, tokens, width] each."""
        new = key_states, value_states
        if not self.buffers:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [
                states.new_empty(*states.shape[:2], states.shape[2] + self.room, states.shape[3])
                for states in new
            ]
        start = self.get_seq_length()
        for buffer, states in zip(self.buffers, new):
            buffer[: len(states), :, start : start + states.shape[2]] = states
        return self._view(len(key_states), start + key_states.shape[2])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows ``indices``, in ascending order; each moves up into the place of a dropped one."""
        length = self.get_seq_length()
        for buffer in self.buffers:
            for target, row in enumerate(indices.tolist()):
                if target != row:
                    buffer[target, :, :length] = buffer[row, :, :length]
        if length:  # a layer that reads another layer's keys stores none
            self._view(len(indices), length)

    def _view(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Let ``keys`` and ``values`` be the used part of the memory, and return them."""
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self.buffers)
        return self.keys, self.values


def decoding_cache(model: Any, room: int) -> DynamicCache:
    """Return an empty cache for one forward and then ``room`` tokens.

    Layers with sliding or linear attention keep the cache of the library.
    """
    cache = DynamicCache(config=model.config)
    cache.layers = [
        PreallocatedLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
