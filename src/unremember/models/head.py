"""The two parts of a causal language model: its body, and whatever makes logits of the body's final states.

Families scale, cap and transform their logits in their own ways. No such way is written down here: the
model's own forward runs, with a stand-in for its body.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def body(model: Any) -> nn.Module:
    """Return the transformer without its output layer."""
    return getattr(model, _body_name(model))


def _body_name(model: Any) -> str:
    """Return the attribute that holds the body: a few architectures name one that they lack (Llama 4)."""
    prefix: str = model.base_model_prefix
    return prefix if hasattr(model, prefix) else "model"


class _States(tuple[Tensor, ...]):
    """The output of a body that gives nothing but its final hidden states."""

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        """Return None: what else a body may give was not computed."""


class _GivenStates(nn.Module):
    """Stands in for the body of a model, or for its decoder, and gives states that were computed before."""

    states: Tensor

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        # The model may read plain attributes of its body (Falcon-H1: the multiplier of the logits).
        self.__dict__.update({name: value for name, value in vars(body).items() if name[0] != "_"})

    @property
    def decoder(self) -> nn.Module:
        return self

    def forward(self, *_: Any, **__: Any) -> _States:
        return _States((self.states,))


class Head:
    """A model behind its body: whatever its own forward makes of the final hidden states."""

    def __init__(self, model: Any) -> None:
        self.given = _GivenStates(body(model))
        self.model = copy.copy(model)
        self.model._modules = {**model._modules, _body_name(model): self.given}

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., V] of final hidden states [..., D]."""
        self.given.states = hidden.reshape(1, -1, hidden.shape[-1])
        ids = torch.zeros(self.given.states.shape[:2], dtype=torch.int64, device=hidden.device)
        logits = type(self.model).forward(self.model, input_ids=ids, use_cache=False).logits
        return logits.reshape(*hidden.shape[:-1], logits.shape[-1])


def head(model: Any, hidden: Tensor) -> Tensor:
    """Return the logits [..., V] of final hidden states [..., D], by the model's own forward."""
    return Head(model)(hidden)
