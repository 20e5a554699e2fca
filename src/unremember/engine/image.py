"""The image task: any ``nn.Module`` that maps images to class scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unremember.data.split import Split
from unremember.engine.seams import Need
from unremember.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Images:
    """Inputs Tensor[n, …] and labels int64[n] of one role."""

    inputs: Tensor
    labels: Tensor


@dataclasses.dataclass(frozen=True)
class ImageView:
    """``read(need)``: class scores Tensor[B, C]; ``labels`` int64[B]."""

    scores: Tensor
    labels: Tensor

    def read(self, need: Need) -> Tensor:
        return self.scores


@dataclasses.dataclass(frozen=True)
class ImageTask:
    """Classification of rows ``{"input": array, "label": int}``. Raises ConfigError for a loss of texts."""

    def digest(self) -> str:
        return "image"

    def encode(self, split: Split, role: str, texts: Sequence[str]) -> Images:
        if others := [text for text in texts if text != "input"]:
            raise ConfigError(f"images have no text {', '.join(others)!r}: choose a loss for images (cross_entropy)")
        rows = split[role]
        inputs = torch.stack([torch.as_tensor(np.asarray(value)) for value in rows.column("input")])
        return Images(inputs, torch.tensor([int(value) for value in rows.column("label")]))

    def sizes(self, data: Images, text: str) -> tuple[np.ndarray, np.ndarray]:
        ones = np.ones(len(data.labels), dtype=np.int64)
        return ones, ones

    def lasting(self, model: Any, need: Need) -> tuple[Need, None]:
        return need, None

    def forward(self, model: Any, parts: Mapping[str, tuple[Images, np.ndarray]],
                needs: Mapping[str, Sequence[Need]]) -> dict[str, ImageView]:  # fmt: skip
        device = next(model.parameters()).device
        rows = {role: torch.from_numpy(drawn) for role, (_, drawn) in parts.items()}
        scores = model(torch.cat([parts[role][0].inputs[at] for role, at in rows.items()]).to(device))
        split = dict(zip(rows, scores.split([len(at) for at in rows.values()])))
        return {role: ImageView(split[role], parts[role][0].labels[at].to(device)) for role, at in rows.items()}
