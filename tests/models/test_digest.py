"""The digest follows every bit of every weight, and nothing else."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from unremember.models.digest import weights_digest
from unremember.models.load import load_model, save_model


def test_it_is_the_hash_that_the_docstring_says() -> None:
    net = nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -2.0]]))
        net.bias.fill_(0.5)
    raw = (
        b"bias torch.float32 (1,)\n"
        + np.float32([0.5]).tobytes()
        + b"weight torch.float32 (1, 2)\n"
        + np.float32([1, -2]).tobytes()
    )
    assert weights_digest(net) == hashlib.sha256(raw).hexdigest()


def test_one_bit_of_any_tensor_changes_it(model: Any) -> None:
    digests = {weights_digest(model)}
    tensors = dict(model.named_parameters())
    for tensor in tensors.values():
        with torch.no_grad():
            tensor.view(-1).view(torch.int32)[-1] ^= 1
        digests.add(weights_digest(model))
    assert len(digests) == len(tensors) + 1 == 21
    for tensor in tensors.values():
        with torch.no_grad():
            tensor.view(-1).view(torch.int32)[-1] ^= 1
    assert weights_digest(model) in digests, "and the same bits bring it back"


def test_the_sign_of_zero_and_a_swap_of_two_tensors_change_it() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[0].weight.zero_()
    swapped, negative = nn.Sequential(net[1], net[0]), copy.deepcopy(net)
    negative[0].weight.data.neg_()
    assert len({weights_digest(each) for each in (net, swapped, negative)}) == 3


def test_the_same_bytes_in_another_shape_or_dtype_change_it() -> None:
    holders = [
        nn.ParameterDict({"w": nn.Parameter(t, requires_grad=False)})
        for t in (
            torch.zeros(4),
            torch.zeros(2, 2),
            torch.zeros(8, dtype=torch.bfloat16),
            torch.zeros(4, dtype=torch.int32),
        )
    ]
    assert len({weights_digest(holder) for holder in holders}) == 4


def test_tied_weights_and_equal_copies_are_one(model: Any) -> None:
    tied = weights_digest(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    assert weights_digest(model) == tied
    with torch.no_grad():
        model.lm_head.weight[3, 5] += 1
    assert weights_digest(model) != tied, "an output layer of its own counts"


def test_the_order_of_keys_does_not_count() -> None:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    first = nn.ModuleDict(OrderedDict(first=a, second=b))
    second = nn.ModuleDict(OrderedDict(second=b, first=a))
    assert list(first.state_dict()) != list(second.state_dict()) and weights_digest(first) == weights_digest(
        second
    )


def test_what_changes_no_bit_does_not_count(model: Any) -> None:
    before = weights_digest(model)
    model.double().float().requires_grad_(False).train()
    weight = model.model.layers[0].mlp.up_proj.weight
    weight.data = weight.data.t().contiguous().t()
    assert not weight.is_contiguous() and weights_digest(model) == before
    assert weights_digest(model.to("meta").to_empty(device="cpu")) != before


def test_saved_buffers_count_and_others_do_not() -> None:
    net = nn.BatchNorm1d(2)
    before = weights_digest(net)
    net.running_mean.add_(1)
    assert weights_digest(net) != before
    before = weights_digest(net)
    net.register_buffer("scratch", torch.ones(3), persistent=False)
    assert weights_digest(net) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_survives_saving_and_loading(
    tiny_llama: Any, tokenizer: Any, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = copy.deepcopy(tiny_llama).to(dtype)
    save_model(model, tokenizer, tmp_path / "model")
    assert weights_digest(load_model(tmp_path / "model")) == weights_digest(
        LlamaForCausalLM.from_pretrained(tmp_path / "model")
    )
    assert weights_digest(load_model(tmp_path / "model")) == weights_digest(model)
