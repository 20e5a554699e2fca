"""Keys and values of a decoding batch, in place: nothing is copied when a token is added or a row leaves."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class Place(DynamicLayer):
    """A layer's keys and values in room taken once, for ``room`` tokens more than its first forward has."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.held: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        new = key_states, value_states
        if not self.held:
            self.lazy_initialization(key_states, value_states)
            self.held = [
                states.new_empty(*states.shape[:2], states.shape[2] + self.room, states.shape[3])
                for states in new
            ]
        start = self.get_seq_length()
        for held, states in zip(self.held, new):
            held[: len(states), :, start : start + states.shape[2]] = states
        return self.show(len(key_states), start + key_states.shape[2])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows ``indices``, in ascending order: each moves up to where one that left had been."""
        length = self.get_seq_length()
        for held in self.held:
            for to, row in enumerate(indices.tolist()):
                if to != row:
                    held[to, :, :length] = held[row, :, :length]
        if length:  # a layer that reads another's keys holds none
            self.show(len(indices), length)

    def show(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (held[:rows, :, :length] for held in self.held)
        return self.keys, self.values


def decoding_cache(model: Any, room: int) -> DynamicCache:
    """An empty cache for one forward and then ``room`` tokens; layers with sliding or linear attention keep the library's own."""
    cache = DynamicCache(config=model.config)
    cache.layers = [Place(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
