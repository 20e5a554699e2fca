"""Question files and a tiny model for runs without the terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unremember.models.presets import small_llama
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A benchmark of eight questions to forget and twelve to retain."""
    folder = tmp_path_factory.mktemp("data")
    rows = {
        "forget": [{"question": f"Who is {i}?", "answer": "the long river"} for i in range(8)],
        "retain": [{"question": f"Where is {i}?", "answer": "near the harbour"} for i in range(12)],
    }
    for role, listed in rows.items():
        (folder / f"{role}.json").write_text(json.dumps(listed))
    return {"name": "files", "roles": {role: str(folder / f"{role}.json") for role in rows}}


@pytest.fixture(scope="session")
def start(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder: one block of width 16, with a prompt template of its own."""
    model = small_llama(len(tokenizer), hidden=16, layers=1, heads=2, context=64)
    folder = tmp_path_factory.mktemp("models") / "start"
    Artefact(model, LanguageTask.of(model, tokenizer, "{question}\n")).save(folder)
    return str(folder)
