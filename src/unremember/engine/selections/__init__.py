"""Selections: which weights may move. One file a selection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from unremember.engine.seams import Selected


def only(model: Any, names: Iterable[str], finish: Callable[[Any], Any] = lambda model: model) -> Selected:
    """Freeze ``model`` but for some parameters.

    Args:
        names: The names of the parameters that may move.
        finish: Called with the model when training ends; returns the model.
    """
    chosen = set(names)
    parameters = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
        if name in chosen:
            parameters[name] = parameter
    return Selected(parameters, finish)
