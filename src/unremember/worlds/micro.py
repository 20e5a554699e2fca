"""A micro-world of 240 facts that a small net learns in seconds.

It has forty entities in eight groups. The entities of a group share part of their features, so forgetting one
affects the others. Shaped after the experiments of HAMU (arXiv 2606.02119), for whose checks it was made.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from unremember.data.split import Split, make_split
from unremember.errors import ConfigError

_ENTITIES, _GROUPS, _QUESTIONS, _CLASSES, _HALF_WIDTH = 40, 8, 6, 20, 48
_FORGOTTEN_ENTITIES = 4


@dataclasses.dataclass(frozen=True)
class MicroWorld:
    """The facts of a micro-world.

    Args:
        inputs: float64[240, 96], the input of each fact.
        labels: int64[240], its answer.
        entities: int64[240], the entity that it is about.
    """

    inputs: Tensor
    labels: Tensor
    entities: Tensor

    @property
    def forget(self) -> Tensor:
        """bool[240]: whether a fact is to be forgotten: the 24 facts about entities 0 … 3."""
        return self.entities < _FORGOTTEN_ENTITIES

    def split(self) -> Split:
        """Return the roles forget and retain; a row has ``input`` (float64[96]), ``label`` and ``entity``."""
        rows = [
            {"input": vector, "label": label, "entity": f"entity-{entity}"}
            for vector, label, entity in zip(self.inputs, self.labels.tolist(), self.entities.tolist())
        ]
        forgotten = self.forget.tolist()
        roles = {
            "forget": [row for row, forget in zip(rows, forgotten) if forget],
            "retain": [row for row, forget in zip(rows, forgotten) if not forget],
        }
        return make_split(roles, name="micro")


def micro_world(overlap: float = 0.6, seed: int = 0) -> MicroWorld:
    """Draw six facts about each of 40 entities, with answers uniform over 20 classes.

    An input is the concatenation of √overlap · group + √(1 − overlap) · own (ℝ⁴⁸, the entity's features) and
    one of six question vectors (ℝ⁴⁸), times 3/√48. All vectors are standard normal.

    Args:
        overlap: The share of features that the entities of a group have in common.
        seed: The seed of all draws.

    Raises:
        ConfigError: ``overlap`` is not in 0 … 1.
    """
    if not 0 <= overlap <= 1:
        raise ConfigError(
            f"overlap={overlap}: it is the share of features that a group has in common, 0 to 1"
        )
    rng = torch.Generator().manual_seed(seed)
    groups, own, questions = (
        torch.randn(n, _HALF_WIDTH, generator=rng, dtype=torch.float64)
        for n in (_GROUPS, _ENTITIES, _QUESTIONS)
    )
    entities = torch.arange(_ENTITIES).repeat_interleave(_QUESTIONS)
    features = overlap**0.5 * groups[entities % _GROUPS] + (1 - overlap) ** 0.5 * own[entities]
    inputs = torch.cat([features, questions.repeat(_ENTITIES, 1)], dim=1) * 3 / _HALF_WIDTH**0.5
    return MicroWorld(inputs, torch.randint(_CLASSES, (len(entities),), generator=rng), entities)


def micro_net(seed: int = 0) -> nn.Sequential:
    """Return a tanh net 96-64-64-20 in float64, from float64[B, 96] to float64[B, 20].

    Weights are drawn from N(0, 1)/√fan-in; biases are 0.
    """
    rng = torch.Generator().manual_seed(seed)
    layers = [
        nn.Linear(a, b, dtype=torch.float64) for a, b in ((2 * _HALF_WIDTH, 64), (64, 64), (64, _CLASSES))
    ]
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=rng)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
