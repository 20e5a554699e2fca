"""What lies inside a causal language model: its body, its blocks, its output layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unremember.errors import ModelError

LOGIT_BUDGET = 2**25
"""Logits that exist at once where gradients are wanted: more rows than fit are made in chunks, and again in the backward pass."""
READ_BUDGET = 2**22
"""Logits that exist at once where they are only read: few enough to stay near the processor."""


def body(model: Any) -> nn.Module:
    """The transformer without its output layer."""
    return model.base_model


def layers(model: Any) -> nn.ModuleList:
    """The decoder blocks. Raises ModelError where none are found."""
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ModelError(f"{type(model).__name__} has no list of {depth} decoder blocks: layers cannot be chosen by number")


def head(model: Any, hidden: Tensor) -> Tensor:
    """Logits [..., V] of final hidden states [..., D], with what the architecture does after its output layer."""
    config = model.config
    logits = model.get_output_embeddings()(hidden)
    if getattr(config, "logit_scale", None):
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None):
        logits = logits / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def window(model: Any) -> int | None:
    """Tokens that a layer with sliding attention sees; None where every layer sees everything."""
    config = model.config.get_text_config()
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return getattr(config, "sliding_window", None) if slides else None


def last_hidden(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    """Final hidden states [B, T, D] of ids [B, T]; masks, positions and caches are passed on."""
    return body(model)(input_ids=ids, use_cache=False, **inputs).last_hidden_state


class _Reached(Exception):
    """Ends a forward at the layer that was asked for."""


def hidden_at(model: Any, ids: Tensor, layer: int, **inputs: Any) -> Tensor:
    """Output [B, T, D] of block ``layer`` (negative from the end); deeper blocks and the output layer never run."""
    blocks = layers(model)
    if not -len(blocks) <= layer < len(blocks):
        raise ModelError(f"the model has {len(blocks)} blocks: layer {layer} is not among 0..{len(blocks) - 1}")
    found: list[Tensor] = []

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _Reached

    hook = blocks[layer].register_forward_hook(stop)
    try:
        last_hidden(model, ids, **inputs)
    except _Reached:
        pass
    finally:
        hook.remove()
    return found[0]


def chunks(model: Any, rows: int, budget: int) -> int:
    """Rows whose logits fit in the budget."""
    return max(1, min(rows, budget // model.config.get_text_config().vocab_size))


def token_logprobs(model: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """float32 [M]: log p(label) from the hidden states [M, D] that predict them; differentiable.

    Logits are made a chunk of rows at a time and made again in the backward pass, so memory does not grow with
    rows times vocabulary.
    """

    def part(states: Tensor, wanted: Tensor) -> Tensor:
        return -F.cross_entropy(head(model, states).float(), wanted, reduction="none")

    grad = torch.is_grad_enabled()
    size = chunks(model, len(labels), LOGIT_BUDGET if grad else READ_BUDGET)
    if size >= len(labels):
        return part(hidden, labels)
    pieces = zip(hidden.split(size), labels.split(size))
    return torch.cat([checkpoint(part, h, y, use_reentrant=False) if grad else part(h, y) for h, y in pieces])


@torch.no_grad()
def rows_scores(model: Any, hidden: Tensor, row_of_label: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(float32 [M] log p(label), int64 [R] greedy ids) from hidden states [R, D]; several labels may share a row.

    ``row_of_label`` int64[M] names the row that predicts each label; a row's normaliser is computed once.
    """
    logprobs = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    best = []
    order = torch.argsort(row_of_label, stable=True)
    size = chunks(model, len(hidden), READ_BUDGET)
    edges = torch.searchsorted(row_of_label[order].contiguous(), torch.arange(0, len(hidden) + size, size, device=hidden.device))
    for i, states in enumerate(hidden.split(size)):
        logits = head(model, states).float()
        top, greedy = logits.max(-1)
        best.append(greedy)
        mine = order[edges[i] : edges[i + 1]]
        local = row_of_label[mine] - i * size
        wanted = logits[local, labels[mine]]
        logprobs[mine] = wanted - (top + logits.sub_(top[:, None]).exp_().sum(-1).log())[local]
    return logprobs, torch.cat(best)


@torch.no_grad()
def greedy(model: Any, hidden: Tensor) -> Tensor:
    """int64 [R]: the greedy token after each of the hidden states [R, D]."""
    return torch.cat([head(model, states).argmax(-1) for states in hidden.split(chunks(model, len(hidden), READ_BUDGET))])
