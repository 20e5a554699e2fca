"""The cache that stays in preallocated holds what the library's growing one holds."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers import LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer

from unremember.models.cache import PreallocatedLayer, decoding_cache


def test_tokens_are_added_and_rows_leave_as_in_the_librarys_own() -> None:
    torch.manual_seed(0)
    preallocated, grown = PreallocatedLayer(3), DynamicLayer()
    for tokens, stay in ((4, [0, 2, 4]), (1, [1, 2]), (2, [1])):
        rows = grown.keys.shape[0] if grown.is_initialized else 5
        keys, values = torch.randn(rows, 2, tokens, 8), torch.randn(rows, 2, tokens, 6)
        for states, expected in zip(preallocated.update(keys, values), grown.update(keys, values)):
            assert torch.equal(states, expected)
        preallocated.batch_select_indices(torch.tensor(stay))
        grown.batch_select_indices(torch.tensor(stay))
        assert torch.equal(preallocated.keys, grown.keys) and torch.equal(preallocated.values, grown.values)
        assert preallocated.get_seq_length() == grown.get_seq_length() and preallocated.get_mask_sizes(
            1
        ) == grown.get_mask_sizes(1)


def test_rows_leave_a_layer_that_was_never_used() -> None:
    preallocated = PreallocatedLayer(3)
    preallocated.batch_select_indices(torch.tensor([0]))
    assert preallocated.get_seq_length() == 0


def test_room_is_taken_once() -> None:
    preallocated = PreallocatedLayer(3)
    preallocated.update(torch.zeros(2, 1, 4, 8), torch.zeros(2, 1, 4, 8))
    buffer = preallocated.buffers[0]
    for _ in range(3):
        keys, _ = preallocated.update(torch.ones(2, 1, 1, 8), torch.ones(2, 1, 1, 8))
    assert buffer.shape == (2, 1, 7, 8) and keys.data_ptr() == buffer.data_ptr()
    assert buffer.sum() == 2 * 3 * 8


def test_sliding_layers_keep_their_own() -> None:
    configs = {
        "full": LlamaConfig(num_hidden_layers=2),
        "sliding": MistralConfig(num_hidden_layers=2, sliding_window=4),
    }
    kinds = {
        name: {type(layer).__name__ for layer in decoding_cache(SimpleNamespace(config=config), 8).layers}
        for name, config in configs.items()
    }
    assert kinds == {"full": {"PreallocatedLayer"}, "sliding": {"DynamicSlidingWindowLayer"}}
