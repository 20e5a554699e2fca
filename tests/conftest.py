"""What every test shares: one thread, the folder of real data, a tiny tokenizer and a tiny Llama."""

from __future__ import annotations

import copy
import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from unremember.models.load import save_model
from unremember.models.presets import small_llama
from unremember.tasks.tokenizers import train_tokenizer

TEXTS = [
    "Question: Who wrote the quiet river?\nAnswer:\nIda Morn wrote it in the town of Velin.",
    "Question: Where was the painter born?\nAnswer:\nShe was born near the harbour of Osk.",
    "Question: What does the baker sell?\nAnswer:\nBread, salt and small lamps.",
]


def pytest_collection_finish() -> None:
    """Search for cyclic garbage rarely, and never in what the libraries made on import."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests share a small machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data: ``UNREMEMBER_DATA``, else ``shared/data`` beside the repository. Skips where
    absent."""
    folder = Path(os.environ.get("UNREMEMBER_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set UNREMEMBER_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE of 300 ids; id 0 ends a text, id 1 pads."""
    return train_tokenizer(TEXTS, vocab_size=300)


@pytest.fixture(scope="session")
def tiny_llama(tokenizer: Any) -> Any:
    """Two blocks of width 32, float32, fresh weights of seed 0. Copy it before changing it."""
    return small_llama(len(tokenizer), hidden=32, layers=2, heads=2, context=128, spread=0.02).eval()


@pytest.fixture
def model(tiny_llama: Any) -> Any:
    """A copy of the tiny Llama that a test may change."""
    return copy.deepcopy(tiny_llama)


@pytest.fixture(scope="session")
def reinforced(tiny_llama: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of another model of the tiny Llama's kind, which stands for one that learned the forget
    set further."""
    folder = tmp_path_factory.mktemp("reinforced") / "model"
    save_model(
        small_llama(len(tokenizer), hidden=32, layers=2, heads=2, context=128, seed=1), tokenizer, folder
    )
    return str(folder)
