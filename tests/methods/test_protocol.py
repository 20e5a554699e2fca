"""A method of one's own that is no gradient recipe: one file, the same data, run folder and resume as every
other method."""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import unremember as un
from unremember.data.split import Split, make_split
from unremember.engine import checkpoint
from unremember.engine.recipe import refuse_overrides
from unremember.engine.settings import Run
from unremember.errors import ConfigError
from unremember.models import causal
from unremember.tasks.artefact import Artefact


@dataclasses.dataclass(frozen=True)
class Shrink:
    """Multiply the down projections of one block after the other, a checkpoint a block."""

    factor: float = 0.5
    recipes: tuple[Any, ...] = ()

    def derived(self, split: Split) -> Split:
        """The data are enough as they are."""
        return split

    def override(self, **parts: Any) -> Shrink:
        """Refuse every seam."""
        refuse_overrides("weights are multiplied, not trained", parts)
        return self

    def run(self, start: Artefact, split: Split, run: Run) -> Artefact:
        """Shrink the blocks that are left, from the last checkpoint on."""
        blocks = causal.decoder_blocks(start.model)
        folder = run.folder / "checkpoint" if run.folder else None
        saved = checkpoint.latest_checkpoint(folder) if folder else None
        position = int(saved["position"]) if saved else 0
        weights = [block.mlp.down_proj.weight for block in blocks]  # type: ignore[union-attr]
        with torch.no_grad():
            for i in range(position):
                weights[i].copy_(saved[f"weights/{i}"])  # type: ignore[index]
            for i in range(position, len(weights)):
                weights[i].mul_(self.factor)
                if folder:
                    tree = {"position": i + 1, "weights": {str(k): weights[k] for k in range(i + 1)}}
                    checkpoint.save_checkpoint(folder, tree, i + 1)
                if run.watch and run.watch(start.model, i + 1):
                    break
        return Artefact(start.model, start.task)


@pytest.fixture(scope="module")
def split() -> Split:
    rows = [{"question": f"Who is {i}?", "answer": "the long river"} for i in range(4)]
    return make_split({"forget": rows, "retain": [{**row, "answer": "near the harbour"} for row in rows]})


@pytest.fixture
def artefact(model: Any, tokenizer: Any) -> Artefact:
    return un.load(model, tokenizer)


def test_it_runs_like_any_other_method(artefact: Artefact, split: Split, tmp_path: Path) -> None:
    before = copy.deepcopy(artefact.model.state_dict())
    done = un.forget(artefact, split, Shrink(), folder=tmp_path)
    names = {
        name for name, weight in done.model.state_dict().items() if not torch.equal(weight, before[name])
    }
    assert names == {f"model.layers.{i}.mlp.down_proj.weight" for i in range(2)}
    assert torch.equal(done.model.state_dict()[min(names)], 0.5 * before[min(names)]) and artefact.verify()
    (measured,) = un.audit(
        done, split, oracle=artefact, original=artefact, audits=["probability"], quiet=True
    )
    assert measured.artefact == done.digest


def test_it_may_be_watched_and_stopped(artefact: Artefact, split: Split) -> None:
    seen: list[int] = []

    def watch(model: Any, step: int) -> bool:
        seen.append(step)
        return True

    done = un.forget(artefact, split, Shrink(), watch=watch)
    changed = [not torch.equal(a, b) for a, b in zip(artefact.model.parameters(), done.model.parameters())]
    assert seen == [1] and sum(changed) == 1


def test_a_killed_run_goes_on_exactly(artefact: Artefact, split: Split, tmp_path: Path) -> None:
    undisturbed = un.forget(artefact, split, Shrink(), folder=tmp_path / "whole")

    def die(model: Any, step: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            un.forget(artefact, split, Shrink(), folder=tmp_path / "cut", watch=die)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    flat = checkpoint.latest_checkpoint(tmp_path / "cut" / "checkpoint")
    assert flat is not None and flat["position"] == 1
    assert un.forget(artefact, split, Shrink(), folder=tmp_path / "cut").digest == undisturbed.digest


@pytest.mark.parametrize("seam", ["blend", "sampling", "selection", "retain_loss"])
def test_a_seam_that_it_lacks_is_refused(seam: str, artefact: Artefact, split: Split) -> None:
    with pytest.raises(
        ConfigError, match=f"{seam} cannot be replaced here: weights are multiplied, not trained"
    ):
        un.forget(artefact, split, Shrink(), **{seam: "all"})
