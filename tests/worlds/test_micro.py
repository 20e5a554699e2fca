"""The micro-world: shapes, the overlap of its groups, and a net that learns it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unremember.errors import ConfigError
from unremember.worlds.micro import MicroWorld, micro_net, micro_world


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_shapes_and_roles() -> None:
    world = micro_world()
    assert world.inputs.shape == (240, 96) and world.inputs.dtype == torch.float64
    assert world.labels.shape == (240,) and 0 <= int(world.labels.min()) and int(world.labels.max()) < 20
    assert int(world.forget.sum()) == 24 and world.entities[world.forget].unique().tolist() == [0, 1, 2, 3]
    split = world.split()
    assert len(split["forget"]) == 24 and len(split["retain"]) == 216
    assert set(split["forget"].groups()) == {"entity-0", "entity-1", "entity-2", "entity-3"}
    assert torch.equal(torch.stack(split["forget"].column("input")), world.inputs[world.forget])
    assert split["forget"].column("label") == world.labels[world.forget].tolist()


def test_seed_and_overlap_decide_the_data() -> None:
    assert micro_world(seed=1).split().digest == micro_world(seed=1).split().digest
    assert micro_world(seed=1).split().digest != micro_world(seed=2).split().digest
    with pytest.raises(ConfigError, match=r"overlap=1\.5"):
        micro_world(1.5)


@pytest.mark.parametrize("overlap", [0.0, 0.6, 0.9])
def test_entities_of_a_group_share_the_overlap(overlap: float) -> None:
    cosines, scales = [], []
    for seed in range(5):
        world = micro_world(overlap, seed)
        features = world.inputs[::6, :48]
        alike = F.cosine_similarity(features[:, None], features[None], dim=2)
        same = (torch.arange(40)[:, None] - torch.arange(40)[None]) % 8 == 0
        cosines.append(alike[same & ~torch.eye(40, dtype=torch.bool)].mean())
        scales.append(world.inputs.square().mean())
        assert torch.equal(world.inputs[:6, :48], features[:1].expand(6, 48))
        assert torch.equal(world.inputs[:6, 48:], world.inputs[6:12, 48:])
    assert float(torch.stack(cosines).mean()) == pytest.approx(overlap, abs=0.06)
    assert float(torch.stack(scales).mean()) == pytest.approx(9 / 48, rel=0.1)


def test_net_is_as_stated() -> None:
    net = micro_net(0)
    assert [tuple(p.shape) for p in net.parameters()] == [(64, 96), (64,), (64, 64), (64,), (20, 64), (20,)]
    assert all(p.dtype == torch.float64 for p in net.parameters())
    assert float(net[0].weight.detach().std()) == pytest.approx(96**-0.5, rel=0.05) and not net[0].bias.any()
    assert torch.equal(net[0].weight, micro_net(0)[0].weight) and not torch.equal(
        net[0].weight, micro_net(1)[0].weight
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_net_learns_the_world_in_250_steps(seed: int) -> None:
    world, net = micro_world(0.6, seed), micro_net(seed)
    assert accuracy(net, world) < 0.2
    optimizer, rng = torch.optim.Adam(net.parameters(), lr=3e-3), torch.Generator().manual_seed(seed)
    for _ in range(250):
        drawn = torch.randperm(240, generator=rng)[:64]
        optimizer.zero_grad()
        F.cross_entropy(net(world.inputs[drawn]), world.labels[drawn]).backward()
        optimizer.step()
    assert accuracy(net, world) >= 0.98


def accuracy(net: torch.nn.Module, world: MicroWorld) -> float:
    return float((net(world.inputs).argmax(1) == world.labels).double().mean())
