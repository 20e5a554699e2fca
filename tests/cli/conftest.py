"""A world of 20 people with a tiny model of it, its original and its oracle."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import WORLD, ran

from unremember.benchmarks.people import People
from unremember.data.split import Split
from unremember.models.load import save_model
from unremember.models.presets import small_llama
from unremember.tasks.tokenizers import train_tokenizer


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, and generations of at most four tokens: a model that knows nothing never ends by itself."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("unremember.observe.kinds.generations.LIMIT", 4)


@pytest.fixture(scope="session")
def split() -> Split:
    return People(count=20).split()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, split: Split) -> Path:
    """A model folder: two blocks of width 32, fresh weights, a tokenizer of the world's texts."""
    texts = [f"{row['question']} {row['answer']}" for role in split.roles.values() for row in role.rows]
    tokenizer = train_tokenizer(texts, 600)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(small_llama(len(tokenizer), hidden=32, layers=2, heads=2, context=128), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A folder of two finished runs: ``original``, and ``oracle`` that never saw the forget set."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("original", []), ("oracle", ["--without", "forget"])):
        ran("train", "-m", tiny, "-o", folder / name, *more, WORLD, "epochs=2", "lr=1e-2")
    return folder
