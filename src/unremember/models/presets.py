"""Models with fresh weights, drawn from a seed: a small Llama, or any architecture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from unremember.errors import ModelError


def small_llama(
    vocab_size: int,
    *,
    hidden: int = 192,
    layers: int = 4,
    heads: int = 4,
    context: int = 512,
    seed: int = 0,
    spread: float = 0.0,
) -> Any:
    """Return a small Llama with tied embeddings and fresh weights.

    Args:
        vocab_size: The tokens of its vocabulary.
        hidden: The width of its hidden states.
        layers: Its blocks.
        heads: The attention heads of a block.
        context: The most tokens of a text.
        seed: The seed of the weights; no global random state changes.
        spread: The standard deviation of the weights. 0 means 1/√hidden, which gives the first logits unit
            variance: so narrow a model learns a world's facts in half the epochs that it takes from the
            architecture's own 0.02.
    """
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=spread or hidden**-0.5,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    return fresh_model(config, seed)


def fresh_model(config: Any, seed: int) -> Any:
    """Return a causal language model of ``config`` whose weights are drawn from ``seed``.

    No global random state changes.
    """
    from transformers import AutoModelForCausalLM

    with _seeded(seed):
        return AutoModelForCausalLM.from_config(config)


def fresh_model_like(model: Any, seed: int) -> Any:
    """Return a model of the same class and configuration, with weights drawn from ``seed``; any modality.

    No global random state changes.

    Raises:
        ModelError: The model has no configuration to build it from.
    """
    if not hasattr(model, "_from_config"):
        raise ModelError(
            f"a {type(model).__name__} has no configuration to draw fresh weights for: "
            "give a model of transformers"
        )
    with _seeded(seed):
        return type(model)._from_config(model.config)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's generator for a while. ``torch.manual_seed`` would also seed every GPU."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
