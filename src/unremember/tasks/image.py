"""The image task: any ``nn.Module`` that maps images to class scores."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unremember.data.split import Split
from unremember.errors import ConfigError, ModelError
from unremember.models.load import load_model, save_model
from unremember.registry import tasks
from unremember.tasks.protocol import Need


@dataclasses.dataclass(frozen=True)
class Images:
    """Inputs Tensor[n, …] and labels int64[n] of one role."""

    inputs: Tensor
    labels: Tensor


@dataclasses.dataclass(frozen=True)
class ImageView:
    """Class scores Tensor[B, C] and labels int64[B] of the drawn rows."""

    scores: Tensor
    labels: Tensor

    def read(self, need: Need) -> Tensor:
        """Return the class scores or the labels. Raises ConfigError for any other quantity."""
        refuse([need])
        return self.labels if need.what == "labels" else self.scores


def refuse(needs: Sequence[Need]) -> None:
    """Raise ConfigError for the first need that class scores and labels do not answer."""
    for need in needs:
        if need.text != "input":
            raise ConfigError(f"images have no text {need.text!r}: choose a loss for images (cross_entropy)")
        if need.what not in ("logits", "labels"):
            raise ConfigError(
                f"an image classifier gives class scores (logits) and labels, not {need.what}: "
                "choose another loss"
            )


@tasks.register("image", fidelity="own", architectures="ForImageClassification")
@dataclasses.dataclass(frozen=True)
class ImageTask:
    """Classification of rows ``{"input": array, "label": int}``; inputs get the type of the weights."""

    name: ClassVar[str] = "image"
    training_loss: ClassVar[str] = "cross_entropy"
    digest: ClassVar[str] = "image"

    @classmethod
    def load(cls, name: str, template: str | Mapping[str, Any] | None = None) -> tuple[Any, ImageTask]:
        """Load an image classifier that transformers knows. Raises ConfigError for a prompt template."""
        if template is not None:
            raise ConfigError(f"{name} is an image classifier, which is asked nothing: leave out template")
        return load_model(name, kind="AutoModelForImageClassification"), cls()

    def save(self, model: Any, folder: Path) -> None:
        """Write a classifier of transformers. Raises ModelError for a module that cannot be loaded again."""
        if not hasattr(model, "save_pretrained"):
            raise ModelError(
                f"a {type(model).__name__} has no configuration from which it could be loaded again: "
                "use an image classifier of transformers, or keep the model in Python"
            )
        save_model(model, None, folder, {"task.json": json.dumps({"task": self.name})})

    def describe(self, model: Any) -> str:
        """Say how many classes a model of transformers knows; other modules do not say."""
        labels = getattr(getattr(model, "config", None), "num_labels", "an unknown number of")
        return f"{labels} classes"

    def encode(self, split: Split, role: str, texts: Sequence[str]) -> Images:
        """Stack a role's images. Raises ConfigError where another column than ``input`` is asked for."""
        refuse([Need(text, "logits") for text in texts])
        rows = split[role]
        inputs = torch.stack([torch.as_tensor(np.asarray(value)) for value in rows.column("input")])
        return Images(inputs, torch.tensor([int(value) for value in rows.column("label")]))

    def sizes(self, data: Images, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Every image is as much work as any other, and has one label."""
        ones = np.ones(len(data.labels), dtype=np.int64)
        return ones, ones

    def check(self, needs: Sequence[Need]) -> None:
        """Raise ConfigError for a need of texts or of inner states."""
        refuse(needs)

    def compact(self, model: Any, need: Need) -> tuple[Need, None]:
        """Class scores are stored as they are."""
        return need, None

    def forward(
        self,
        model: Any,
        parts: Mapping[str, tuple[Images, np.ndarray]],
        needs: Mapping[str, Sequence[Need]],
    ) -> dict[str, ImageView]:
        """Run the drawn images of all roles as one batch."""
        weight = next(model.parameters())
        rows = {role: torch.from_numpy(drawn) for role, (_, drawn) in parts.items()}
        output = model(
            torch.cat([parts[role][0].inputs[indices] for role, indices in rows.items()]).to(weight)
        )
        scores = getattr(output, "logits", output)
        split = dict(zip(rows, scores.split([len(indices) for indices in rows.values()])))
        return {
            role: ImageView(split[role], parts[role][0].labels[indices].to(weight.device))
            for role, indices in rows.items()
        }
