"""Small models from scratch on real architectures."""

from __future__ import annotations

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
    """A Llama with tied embeddings and weights drawn from ``seed``; the global random state is left as it was.

    ``spread`` is the standard deviation of its weights (0: 1/√hidden, which gives the first logits unit variance: so narrow a
    model learns a world's facts in half the epochs that it takes from the architecture's own 0.02).
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
    return fresh(config, seed)


def fresh(config: Any, seed: int) -> Any:
    """A model of ``config`` with fresh weights drawn from ``seed``; no global random state changes."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config)


def fresh_like(model: Any, seed: int) -> Any:
    """Return a model of the same architecture with fresh weights drawn from ``seed``; no global random state changes.

    Raises ModelError for a module that has no configuration to be built from.
    """
    if not hasattr(model, "_from_config"):
        raise ModelError(
            f"a {type(model).__name__} has no configuration from which fresh weights could be drawn"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return type(model)._from_config(model.config)
