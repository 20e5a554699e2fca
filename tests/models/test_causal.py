"""Eight architectures, taken apart: each part equals what the model itself computes."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoConfig, MambaConfig

from architectures import configs
from unremember.errors import ModelError
from unremember.models import causal
from unremember.models.presets import fresh_model

V, D, DEPTH = 61, 32, 3
TINY = configs(V, D, inner=48, depth=DEPTH, heads=4, context=64)
CONFIGS = {name: TINY[name] for name in ("llama", "gpt2", "gpt-neox", "qwen2", "phi", "gemma")} | {
    "gemma2": partial(TINY["gemma2"], final_logit_softcapping=0.3, attn_logit_softcapping=5.0),
    "mistral": partial(TINY["mistral"], sliding_window=5),
}
NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


@pytest.fixture(scope="module", params=CONFIGS)
def net(request: pytest.FixtureRequest) -> Any:
    """A float64 model whose weights are large enough for every part to matter."""
    model = fresh_model(CONFIGS[request.param](), 3).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
                alpha=0.1,
            )
    return model


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(2, V, (2, 9), generator=torch.Generator().manual_seed(0))


def hidden_at(net: Any, ids: Tensor, layer: int) -> Tensor:
    """The output of one block."""
    return causal.hidden_after(net, ids, [layer])[layer]


def close(a: Tensor, b: Tensor) -> bool:
    """Equal to 1e-10; rotary tables and some norms are float32 in either path alike."""
    return a.shape == b.shape and bool((a - b).abs().max() < 1e-10)


ROWS = [4, 1, 3, 4]


@pytest.mark.parametrize("layer", [None, 1])
@torch.no_grad()
def test_packed_rows_are_what_each_is_alone(layer: int | None, net: Any) -> None:
    tokens = torch.randint(2, V, (sum(ROWS),), generator=torch.Generator().manual_seed(2))
    read = (
        (lambda ids: causal.last_hidden(net, ids))
        if layer is None
        else (lambda ids: hidden_at(net, ids, layer))
    )
    alone = torch.cat([read(row[None])[0] for row in tokens.split(ROWS)])
    assert causal.packs(net, max(ROWS)) == (net.config.model_type != "gemma2"), (
        "soft-capped attention is padded"
    )
    assert close(causal.hidden_of_rows(net, tokens, ROWS, [layer])[layer], alone)
    assert (read(tokens[None])[0] - alone).abs().max() > 1e-3, "one long row is something else"
    assert close(read(tokens[:4][None])[0], alone[:4]), "and afterwards the model attends as before"


@pytest.mark.parametrize(
    "config",
    [
        TINY["mistral"](sliding_window=3),
        GPTNeoConfig(
            vocab_size=V,
            hidden_size=D,
            num_layers=DEPTH,
            attention_types=[[["global"], DEPTH]],
            num_heads=4,
            max_position_embeddings=64,
        ),
        MambaConfig(vocab_size=V, hidden_size=D, num_hidden_layers=DEPTH, state_size=4),
    ],
    ids=["a row longer than the window", "attention of its own", "recurrent"],
)
@torch.no_grad()
def test_rows_that_cannot_be_packed_are_padded(config: Any) -> None:
    model = fresh_model(config, 3).eval()
    tokens = torch.randint(2, V, (sum(ROWS),), generator=torch.Generator().manual_seed(2))
    alone = torch.cat([causal.last_hidden(model, row[None])[0] for row in tokens.split(ROWS)])
    assert not causal.packs(model, max(ROWS))
    assert (causal.hidden_of_rows(model, tokens, ROWS)[None] - alone).abs().max() < 1e-5


@torch.no_grad()
def test_head_of_last_hidden_is_the_models_logits(net: Any, ids: Tensor) -> None:
    hidden = causal.last_hidden(net, ids)
    assert hidden.shape == (2, 9, D)
    assert close(causal.head(net, hidden), net(input_ids=ids, use_cache=False).logits)
    assert close(causal.head(net, hidden[:, 3]), net(input_ids=ids).logits[:, 3]), "row by row too"


@torch.no_grad()
def test_masks_and_positions_are_passed_on(net: Any, ids: Tensor) -> None:
    """Left padding with a mask and shifted positions: the same logits as unpadded, in float32.

    In float64 the library's own mask makes fully masked rows NaN where attention is eager.
    """
    net = copy.deepcopy(net).float()
    padded = torch.cat([torch.ones(2, 3, dtype=ids.dtype), ids], 1)
    mask = torch.cat([torch.zeros(2, 3, dtype=ids.dtype), torch.ones_like(ids)], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = causal.head(net, causal.last_hidden(net, padded, attention_mask=mask, position_ids=positions))[
        :, 3:
    ]
    assert (logits - net(input_ids=ids).logits).abs().max() < 1e-4
    assert (causal.head(net, causal.last_hidden(net, padded))[:, 3:] - logits).abs().max() > 1e-2, (
        "without them it would differ"
    )


@torch.no_grad()
def test_layers_are_the_blocks_in_their_order(net: Any, ids: Tensor) -> None:
    blocks, order = causal.decoder_blocks(net), []
    assert len(blocks) == DEPTH
    hooks = [
        block.register_forward_hook(lambda *_, index=index: order.append(index))
        for index, block in enumerate(blocks)
    ]
    net(input_ids=ids)
    for hook in hooks:
        hook.remove()
    assert order == [0, 1, 2]


@torch.no_grad()
def test_hidden_at_is_the_models_own_state(net: Any, ids: Tensor) -> None:
    states = net(input_ids=ids, output_hidden_states=True).hidden_states
    for layer in range(DEPTH - 1):
        assert close(hidden_at(net, ids, layer), states[layer + 1])
    norm = next(getattr(causal.body(net), name) for name in NORMS if hasattr(causal.body(net), name))
    assert close(norm(hidden_at(net, ids, DEPTH - 1)), causal.last_hidden(net, ids)), (
        "the last block's, before the last norm"
    )
    for layer in range(DEPTH):
        assert torch.equal(hidden_at(net, ids, layer - DEPTH), hidden_at(net, ids, layer))


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, -2])
def test_nothing_above_the_layer_runs(net: Any, ids: Tensor, layer: int) -> None:
    ran: list[int] = []
    before = [len(block._forward_hooks) for block in causal.decoder_blocks(net)]
    hooks = [
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
        for index, block in enumerate(causal.decoder_blocks(net))
    ]
    hooks.append(net.get_output_embeddings().register_forward_pre_hook(lambda *_: ran.append(99)))
    hidden_at(net, ids, layer)
    for hook in hooks:
        hook.remove()
    assert ran == list(range(layer % DEPTH + 1))
    assert [len(block._forward_hooks) for block in causal.decoder_blocks(net)] == before, (
        "no hook is left behind"
    )


@torch.no_grad()
def test_all_layers_come_from_one_forward_that_stops_at_the_deepest(net: Any, ids: Tensor) -> None:
    """Each equals the layer read on its own; n layers cost the blocks up to the deepest, once."""
    calls: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
        for number, block in enumerate(causal.decoder_blocks(net))
    ]
    inner = causal.hidden_after(net, ids, [0, 1, -DEPTH])
    inner_calls = list(calls)
    calls.clear()
    every = causal.hidden_after(net, ids, [None, 0, 2])
    every_calls = list(calls)
    for hook in hooks:
        hook.remove()
    assert inner_calls == [0, 1] and every_calls == [0, 1, 2]
    assert set(inner) == {0, 1, -DEPTH} and torch.equal(inner[0], inner[-DEPTH])
    assert all(torch.equal(inner[layer], hidden_at(net, ids, layer)) for layer in (0, 1))
    assert torch.equal(every[None], causal.last_hidden(net, ids)) and torch.equal(
        every[2], hidden_at(net, ids, 2)
    )


def test_gradients_flow_through_hidden_at(net: Any, ids: Tensor) -> None:
    hidden_at(net, ids, 1).square().sum().backward()
    touched = [
        any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
        for block in causal.decoder_blocks(net)
    ]
    net.zero_grad(set_to_none=True)
    assert touched == [True, True, False]


@pytest.mark.parametrize("layer", [DEPTH, -DEPTH - 1])
def test_a_layer_that_is_not_there_is_named(net: Any, ids: Tensor, layer: int) -> None:
    with pytest.raises(ModelError, match=rf"has 3 blocks: layer {layer} is not among 0\.\.2"):
        hidden_at(net, ids, layer)


@pytest.mark.parametrize("budget", [10**9, 4 * V])
def test_gradients_of_token_logprobs_are_those_of_a_log_softmax(
    budget: int, net: Any, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of hidden states and of all weights, whether logits are kept or made again, three rows at a time."""
    monkeypatch.setattr(causal, "LOGIT_BUDGET", budget)
    monkeypatch.setattr(causal, "READ_BUDGET", 3 * V)
    labels, weights = ids[0, 1:], torch.linspace(-1, 2, 8)

    def gradients(read: Any) -> list[Tensor]:
        model = copy.deepcopy(net)
        hidden = causal.last_hidden(model, ids)[0, :-1]
        hidden.retain_grad()
        (weights * read(model, hidden)).sum().backward()
        return [hidden.grad, *[p.grad for p in model.parameters() if p.grad is not None]]

    by_rows = gradients(lambda model, hidden: causal.token_logprobs(model, hidden, labels))
    plain = gradients(
        lambda model, hidden: causal.head(model, hidden).log_softmax(-1)[torch.arange(8), labels]
    )
    assert len(by_rows) == len(plain) and all(
        (a - b).abs().max() < 1e-5 * b.abs().max() for a, b in zip(by_rows, plain)
    )


@torch.no_grad()
@pytest.mark.parametrize("vocabulary", [8192, 288, 50257, 3])
def test_the_first_of_equal_greatest_is_taken(vocabulary: int) -> None:
    logits = torch.randint(-9, 9, (64, vocabulary)).float()  # many are equal
    logits[0], logits[1, -1], logits[2, vocabulary // 2] = 0.0, 99.0, float("nan")
    assert torch.equal(causal.first_greatest(logits), logits.argmax(-1))


@torch.no_grad()
def test_token_logprobs_and_rows_scores_equal_a_log_softmax(
    net: Any, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks of two rows, with several labels a row."""
    monkeypatch.setattr(causal, "LOGIT_BUDGET", 2 * V)
    logits = net(input_ids=ids).logits[0, :-1]
    hidden, labels = causal.last_hidden(net, ids)[0, :-1], ids[0, 1:]
    expected = logits.log_softmax(-1)
    assert (causal.token_logprobs(net, hidden, labels) - expected[torch.arange(8), labels]).abs().max() < 2e-6
    rows = torch.tensor([7, 0, 3, 3, 0, 5, 3])
    targets = torch.tensor([1, 60, 4, 5, 9, 0, 4])
    values, best, _ = causal.rows_scores(net, hidden, rows, targets)
    assert (values - expected[rows, targets]).abs().max() < 2e-6 and torch.equal(best, logits.argmax(-1))
