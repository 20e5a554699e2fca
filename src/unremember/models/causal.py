"""What lies inside a causal language model: its blocks, their states, and what its head says of these."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from unremember.errors import ModelError
from unremember.models.head import body, head
from unremember.models.load import error_summary
from unremember.models.probing import agrees, equal_states, probe_ids, undisturbed

LOGIT_BUDGET = 2**25
"""Logits that exist at once where gradients are needed; beyond that, chunks that are recomputed."""
READ_BUDGET = 2**21
"""Logits that exist at once where they are only read: few enough to stay near the processor."""


def decoder_blocks(model: Any) -> nn.ModuleList:
    """Return the decoder blocks. Raises ModelError where the model has no list of them."""
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ModelError(
        f"{type(model).__name__} has no list of {depth} decoder blocks: layers cannot be chosen by number"
    )


def check_decoder(model: Any) -> None:
    """Raise ModelError unless a model is a decoder whose logits follow from its final hidden states."""
    name = type(model).__name__
    ids = probe_ids(model, 6)[None]
    changed = torch.cat([ids[:, :-1], ids[:, :1]], 1)
    try:
        with undisturbed(model):
            states, changed_states = last_hidden(model, ids), last_hidden(model, changed)
    except Exception as error:
        raise ModelError(f"{name} does not run on token ids alone ({error_summary(error)})") from error
    if not equal_states(states[:, :-1], changed_states[:, :-1]):
        raise ModelError(
            f"{name} is no causal decoder: a token changes what stands before it. Choose a decoder; "
            "where the model can be one, set is_decoder in its config.json"
        )
    if not agrees(model, "head", compute=partial(_logits_twice, model, ids)):
        raise ModelError(
            f"{name} makes its logits of more than its final hidden states: choose another architecture"
        )


def _logits_twice(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of ids [B, T] twice: from the final hidden states, and by the whole model."""
    return head(model, last_hidden(model, ids)), model(input_ids=ids, use_cache=False).logits


def window(model: Any) -> int | None:
    """Return how many tokens a layer with local attention sees; None where every layer sees all."""
    config = model.config.get_text_config()
    if "local" in (getattr(config, "attention_layers", None) or ()):
        return int(config.window_size)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return getattr(config, "sliding_window", None) if slides else None


def context_length(model: Any) -> int | None:
    """Return the most tokens that a model takes; None where no bound is known."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def end_tokens(model: Any) -> list[int]:
    """Return the ids that end a text by the model's own generation settings."""
    settings = getattr(model, "generation_config", None)
    ids = getattr(settings, "eos_token_id", None)
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def last_hidden(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    """Return the final hidden states [B, T, D] of ids [B, T]; masks, positions and caches are passed on."""
    return body(model)(input_ids=ids, use_cache=False, **inputs).last_hidden_state


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: Sequence[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend causally in rows of ``packed`` tokens that lie end to end; without ``packed``, in one row.

    Raises ValueError for a layer with a mask of its own, which would be lost.
    """
    if packed is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if attention_mask is not None:
        raise ValueError(f"{type(module).__name__} makes its own mask")
    rows = zip(*(states.split(packed, dim=2) for states in (query, key, value)))
    return torch.cat(
        [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in rows], dim=1
    ), None


def earlier_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **options: Any
) -> tuple[Tensor, None]:
    """Attend under a mask that hides later tokens: a few queries at a time, against no later keys."""
    ends = range(SPAN, query.shape[2] + SPAN, SPAN)
    parts = [
        sdpa_attention_forward(
            module,
            query[:, :, end - SPAN : end],
            key[:, :, :end],
            value[:, :, :end],
            attention_mask[:, :, end - SPAN : end, :end],
            **options,
        )[0]
        for end in ends
    ]
    return torch.cat(parts, dim=1), None


PACKED, EARLIER, SPAN = "unremember_packed", "unremember_earlier", 64
AttentionInterface.register(PACKED, packed_attention)
AttentionInterface.register(EARLIER, earlier_attention)


def packs(model: Any, longest: int) -> bool:
    """Return whether rows of up to ``longest`` tokens may be packed end to end.

    Nothing but attention may carry anything from token to token.
    """
    config = model.config.get_text_config()
    attends = {"full_attention", "sliding_attention"}.issuperset(getattr(config, "layer_types", None) or ())
    plain = (
        model.config._attn_implementation in ("sdpa", PACKED, EARLIER)
        and model._supports_attention_backend
        and not model._is_stateful
    )
    fits = longest <= (window(model) or longest)
    return attends and plain and fits and agrees(model, "packs", compute=partial(_packed_and_alone, model))


def _packed_and_alone(model: Any) -> tuple[Tensor, Tensor]:
    """Return the final states of a few short rows twice: packed, and each computed alone."""
    lengths = [2, 1, 2]
    ids = probe_ids(model, sum(lengths))
    alone = [last_hidden(model, row[None])[0] for row in ids.split(lengths)]
    return _packed(model, ids, lengths, [None])[None], torch.cat(alone)


@contextlib.contextmanager
def attending(model: Any, attention: str) -> Iterator[None]:
    """Let the model attend by ``PACKED`` or ``EARLIER`` within the block."""
    before = model.config._attn_implementation
    model.config._attn_implementation = attention
    try:
        yield
    finally:
        model.config._attn_implementation = before


def hidden_of_rows(
    model: Any, ids: Tensor, lengths: Sequence[int], layers: Sequence[int | None] = (None,)
) -> dict[int | None, Tensor]:
    """Compute hidden states of rows that lie end to end, all layers in one forward that stops at the deepest.

    No padding is computed where the architecture allows rows to be packed; others get one right-padded
    forward.

    Args:
        ids: int64[N], the token ids of all rows.
        lengths: The number of tokens of each row.
        layers: Numbers of blocks (negative from the end); None for the final states.

    Returns:
        By layer, Tensor[N, D].
    """
    if packs(model, max(lengths)):
        return _packed(model, ids, lengths, layers)
    inside = _inside(lengths, ids.device)
    padded = ids.new_zeros(inside.shape).masked_scatter_(inside, ids)
    return {layer: states[inside] for layer, states in hidden_after(model, padded, layers).items()}


def _packed(
    model: Any, ids: Tensor, lengths: Sequence[int], layers: Sequence[int | None]
) -> dict[int | None, Tensor]:
    """Compute hidden states of rows end to end in one forward over one row, in which each row is alone."""
    inside = _inside(lengths, ids.device)
    positions = torch.arange(max(lengths), device=ids.device).expand(inside.shape)[inside]
    with attending(model, PACKED):
        packed = hidden_after(model, ids[None], layers, position_ids=positions[None], packed=list(lengths))
    return {layer: states[0] for layer, states in packed.items()}


def _inside(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Return bool[B, T]: which places of right-padded rows hold a token."""
    return torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]


def unpacked(states: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return [B, T, D], right-padded, of what a module inside ``hidden_of_rows`` saw of the rows."""
    inside = _inside(lengths, states.device)
    flat = states.reshape(-1, states.shape[-1])
    if len(flat) == inside.numel():
        return flat.view(*inside.shape, -1)
    padded = flat.new_zeros(*inside.shape, flat.shape[-1])
    padded[inside] = flat
    return padded


class _Reached(Exception):
    """Ends a forward at the deepest block that is read."""


def hidden_after(
    model: Any, ids: Tensor, layers: Sequence[int | None], **inputs: Any
) -> dict[int | None, Tensor]:
    """Compute hidden states after some blocks, in one forward that stops at the deepest.

    Args:
        ids: int64[B, T].
        layers: Numbers of blocks (negative from the end); None for the final states, after the last norm.
        inputs: Masks and positions, passed on to the model.

    Returns:
        By layer, Tensor[B, T, D].

    Raises:
        ModelError: The model has no such block.
    """
    if set(layers) == {None}:
        return {None: last_hidden(model, ids, **inputs)}
    blocks, states = decoder_blocks(model), dict[int | None, Tensor]()
    numbers = {layer: _block_number(layer, len(blocks)) for layer in layers if layer is not None}
    stop = None if None in layers else max(numbers.values())

    def catch(number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            states.update({layer: hidden for layer, chosen in numbers.items() if chosen == number})
            if number == stop:
                raise _Reached

        return hook

    hooks = [blocks[number].register_forward_hook(catch(number)) for number in set(numbers.values())]
    try:
        final = last_hidden(model, ids, **inputs)
        states |= {None: final} if None in layers else {}
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return states


def _block_number(layer: int, count: int) -> int:
    """Return the place of block ``layer`` from the beginning.

    Raises ModelError where there is no such block.
    """
    if not -count <= layer < count:
        raise ModelError(f"the model has {count} blocks: layer {layer} is not among 0..{count - 1}")
    return layer % count


def chunks(model: Any, rows: int, budget: int) -> int:
    """Return how many rows' logits fit in the budget."""
    return max(1, min(rows, budget // model.config.get_text_config().vocab_size))


class _Picked(torch.autograd.Function):
    """The log-softmax float32 [M] of logits [M, V] at labels [M].

    The backward pass turns the logits into their own gradient, a few rows at a time, so there is never a
    second copy of them; it can run once.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        size = max(1, READ_BUDGET // logits.shape[-1])
        ctx.size = size
        logprobs = -torch.cat(
            [
                F.cross_entropy(part, part_labels, reduction="none")
                for part, part_labels in zip(logits.split(size), labels.split(size))
            ]
        )
        ctx.save_for_backward(logits, labels, logits.gather(-1, labels[:, None])[:, 0] - logprobs)
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, labels, normalisers = ctx.saved_tensors
        for part, norm, grad in zip(
            *(values.split(ctx.size) for values in (logits, normalisers[:, None], grads[0][:, None]))
        ):
            part.sub_(norm).exp_().mul_(-grad)
        logits[torch.arange(len(labels), device=labels.device), labels] += grads[0]
        return logits, None


def token_logprobs(model: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return float32 [M], log p(label), from the hidden states [M, D] that predict them; differentiable once.

    Logits are made a chunk of rows at a time and made again in the backward pass, so memory does not grow
    with rows times vocabulary.
    """
    grad = torch.is_grad_enabled()

    def chunk_logprobs(states: Tensor, chunk_labels: Tensor) -> Tensor:
        logits = head(model, states).float()
        if grad:
            return _Picked.apply(logits, chunk_labels)
        return -F.cross_entropy(logits, chunk_labels, reduction="none")

    size = chunks(model, len(labels), LOGIT_BUDGET if grad else READ_BUDGET)
    if size >= len(labels):
        return chunk_logprobs(hidden, labels)
    pieces = zip(hidden.split(size), labels.split(size))
    if not grad:
        return torch.cat([chunk_logprobs(h, y) for h, y in pieces])
    return torch.cat([checkpoint(chunk_logprobs, h, y, use_reentrant=False) for h, y in pieces])


def first_greatest(logits: Tensor) -> Tensor:
    """Return int64 [R], ``logits.argmax(-1)`` of logits [R, V], several times faster on a CPU.

    It goes by way of the greatest of every block, where the vocabulary has a power of two that divides it.
    """
    size = min(128, logits.shape[-1] & -logits.shape[-1])
    if size < 32:
        return logits.argmax(-1)
    blocks = logits.unflatten(-1, (-1, size))
    block = blocks.amax(-1).argmax(-1)
    return block * size + blocks[torch.arange(len(logits), device=logits.device), block].argmax(-1)


@torch.no_grad()
def rows_scores(
    model: Any, hidden: Tensor, row_of_label: Tensor, labels: Tensor, moments: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Score labels from the hidden states that predict them; a row's normaliser is computed once.

    Args:
        hidden: Tensor[R, D], the states of the rows.
        row_of_label: int64[M], the row that predicts each label; several labels may share a row.
        labels: int64[M].
        moments: Whether to compute the moments.

    Returns:
        float32[M], log p(label); int64[R], the greedy ids; float32[R, 2], the mean and variance of log p(v)
        with v drawn from p ([0, 2] without moments).
    """
    logprobs = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    best, spread = [], [hidden.new_empty(0, 2, dtype=torch.float32)]
    order = torch.argsort(row_of_label, stable=True)
    size = chunks(model, len(hidden), READ_BUDGET)
    edges = torch.searchsorted(
        row_of_label[order].contiguous(), torch.arange(0, len(hidden) + size, size, device=hidden.device)
    )
    for i, states in enumerate(hidden.split(size)):
        logits = head(model, states).float()
        best.append(first_greatest(logits))
        in_chunk = order[edges[i] : edges[i + 1]]
        logs = logits.log_softmax(-1)
        logprobs[in_chunk] = logs[row_of_label[in_chunk] - i * size, labels[in_chunk]]
        if moments:
            p = logs.exp()
            mean = (p * logs).sum(-1)
            spread.append(torch.stack([mean, (p * (logs - mean[:, None]).square()).sum(-1)], 1))
        del logits, logs
    return logprobs, torch.cat(best), torch.cat(spread)


@torch.no_grad()
def greedy(model: Any, hidden: Tensor) -> Tensor:
    """Return int64 [R], the greedy token after each of the hidden states [R, D]."""
    return torch.cat(
        [
            first_greatest(head(model, states))
            for states in hidden.split(chunks(model, len(hidden), READ_BUDGET))
        ]
    )
