"""Tiny models of the architectures that tests take apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import (
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
)


def configs(
    vocabulary: int, width: int, inner: int, depth: int, heads: int, context: int
) -> dict[str, Callable[..., Any]]:
    """Return makers of configs of one shape, by architecture.

    ``inner`` is the width of an MLP; keywords change what they name.

    Where heads share keys and values, two do; in Gemma all. Token 0 begins and ends a text, token 1 pads.
    """
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    grouped = {**shape, "num_key_value_heads": heads // 2}
    return {
        "llama": partial(LlamaConfig, **grouped),
        "gpt2": partial(GPT2Config, **shape, n_inner=inner),
        "gpt-neox": partial(GPTNeoXConfig, **shape),
        "qwen2": partial(Qwen2Config, **grouped),
        "phi": partial(PhiConfig, **shape),
        "phi3": partial(Phi3Config, **shape),
        "gemma": partial(GemmaConfig, **{**shape, "num_key_value_heads": 1}, head_dim=width // heads),
        "gemma2": partial(Gemma2Config, **grouped, head_dim=width // heads),
        "mistral": partial(MistralConfig, **grouped),
        "opt": partial(OPTConfig, **shape, ffn_dim=inner, word_embed_proj_dim=width),
    }
