"""Class scores: what an image classifier gives each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch

from unremember.observe.protocol import Arrays, ObservationContext, RoleRequest
from unremember.processes import map_over_processes
from unremember.progress import Progress
from unremember.registry import observations
from unremember.tasks.protocol import Need

_IMAGES = 256
"""Images in one forward."""
_SCORES = Need("input", "logits")


@observations.register("class_scores", needs=("logits",))
@dataclasses.dataclass(frozen=True)
class ClassScores(RoleRequest):
    """The class scores of every image of a role.

    The value is float32[n, C], for n images and C classes.

    Args:
        role: The role whose images are read.
    """

    task: ClassVar[str] = "image"

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> dict[Self, Arrays]:
        """Run the images of one role after another."""
        return {request: {"values": request.score_images(context)} for request in requests}

    def score_images(self, context: ObservationContext) -> np.ndarray:
        """Return the class scores of the role's images."""
        images = context.task.encode(context.split, self.role, ["input"])
        count, scores = len(images.labels), []
        batches = [np.arange(start, min(start + _IMAGES, count)) for start in range(0, count, _IMAGES)]
        with Progress("classifying", count, quiet=context.quiet) as progress:
            for values in map_over_processes(batches, partial(score_batch_of_images, context, images)):
                scores.append(values)
                progress.advance(len(values), 0)
        return np.concatenate(scores)


@torch.no_grad()
def score_batch_of_images(context: ObservationContext, images: Any, rows: np.ndarray) -> np.ndarray:
    """Return float32[B, C], the class scores of some images."""
    view = context.task.forward(context.model, {"images": (images, rows)}, {"images": [_SCORES]})["images"]
    return np.asarray(view.read(_SCORES).float().cpu().numpy())
