"""The arenas of ``bench`` from the shell's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import shell

from unremember.cli import bench


@pytest.fixture
def tofu(tmp_path: Path) -> Path:
    """TOFU's files with two rows of each kind."""
    folder = tmp_path / "tofu"
    folder.mkdir()
    for name in (
        "forget10",
        "forget10_perturbed",
        "retain90",
        "retain_perturbed",
        "real_authors_perturbed",
        "world_facts_perturbed",
    ):
        rows = [
            {
                "question": f"What is {i} of {name.split('_')[0]}?",
                "answer": f"It is {i}.",
                "paraphrased_answer": f"{i}.",
                "perturbed_answer": ["No."],
            }
            for i in range(2)
        ]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return folder


def test_a_second_oracle_of_tofu_is_trained_where_one_is_given(
    tofu: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.RETRAINING, "epochs", 2)
    words = tmp_path / "work", str(tofu), str(runs / "original")
    made = bench.arena("tofu", *words, [str(runs / "oracle")])
    known, retrained = made.oracles
    assert known.digest != retrained.digest != made.original.digest
    assert retrained.model.config.hidden_size == made.original.model.config.hidden_size
    monkeypatch.setattr("unremember.api.forget", None)
    assert bench.arena("tofu", *words, [str(runs / "oracle")]).digest == made.digest, (
        "read, not trained again"
    )
    assert len(bench.arena("tofu", *words, [str(runs / "oracle")] * 2).oracles) == 2


def test_an_arena_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert (
        "people-<count> (people-40) and tofu"
        in shell("bench", "methods", "peple-40", "-w", tmp_path, "-o", tmp_path).refused()
    )
    assert (
        "needs --original and --oracle"
        in shell("bench", "methods", "tofu", "-w", tmp_path, "-o", tmp_path).refused()
    )
