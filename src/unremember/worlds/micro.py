"""A micro-world of 240 facts that a small net learns in seconds, with entities that share features.

Forty entities in eight groups; an entity's features are partly its group's, so forgetting one entity pulls at the
others of its group. Made for the checks of HAMU (arXiv 2606.02119), after which it is shaped.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from unremember.data.split import Split, make_split
from unremember.errors import ConfigError

ENTITIES, GROUPS, QUESTIONS, CLASSES, HALF = 40, 8, 6, 20, 48
FORGOTTEN = 4


@dataclasses.dataclass(frozen=True)
class MicroWorld:
    """``inputs`` float64[240, 96], ``labels`` int64[240], ``entities`` int64[240]: fact i is of ``entities[i]``."""

    inputs: Tensor
    labels: Tensor
    entities: Tensor

    @property
    def forget(self) -> Tensor:
        """bool[240]: the 24 facts of entities 0 … 3."""
        return self.entities < FORGOTTEN

    def split(self) -> Split:
        """Roles forget and retain of rows ``{"input": float64[96], "label": int, "entity": str}``."""
        rows = [
            {"input": vector, "label": label, "entity": f"entity-{entity}"}
            for vector, label, entity in zip(self.inputs, self.labels.tolist(), self.entities.tolist())
        ]
        roles = {
            "forget": [row for row, gone in zip(rows, self.forget.tolist()) if gone],
            "retain": [row for row, gone in zip(rows, self.forget.tolist()) if not gone],
        }
        return make_split(roles, name="micro")


def micro_world(overlap: float = 0.6, seed: int = 0) -> MicroWorld:
    """Six facts on each of 40 entities, with answers uniform over 20 classes.

    An input joins √overlap · group + √(1 − overlap) · own of the entity (ℝ⁴⁸) with one of six question vectors
    (ℝ⁴⁸), all standard normal, times 3/√48. ``overlap`` outside 0 … 1 raises :class:`ConfigError`.
    """
    if not 0 <= overlap <= 1:
        raise ConfigError(
            f"overlap={overlap}: it is the share that entities of a group have in common, 0 to 1"
        )
    rng = torch.Generator().manual_seed(seed)
    groups, own, questions = (
        torch.randn(n, HALF, generator=rng, dtype=torch.float64) for n in (GROUPS, ENTITIES, QUESTIONS)
    )
    entities = torch.arange(ENTITIES).repeat_interleave(QUESTIONS)
    features = overlap**0.5 * groups[entities % GROUPS] + (1 - overlap) ** 0.5 * own[entities]
    inputs = torch.cat([features, questions.repeat(ENTITIES, 1)], dim=1) * 3 / HALF**0.5
    return MicroWorld(inputs, torch.randint(CLASSES, (len(entities),), generator=rng), entities)


def micro_net(seed: int = 0) -> nn.Sequential:
    """A tanh net 96-64-64-20 in float64: weights N(0, 1)/√fan-in, biases 0. Maps float64[B, 96] to float64[B, 20]."""
    rng = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(a, b, dtype=torch.float64) for a, b in ((2 * HALF, 64), (64, 64), (64, CLASSES))]
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=rng)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
