"""The arenas of the experiments: a second oracle is trained once, and what is no arena is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import shell

from unremember.experiments import arenas
from unremember.experiments.arenas import ArenaSource


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
    monkeypatch.setitem(arenas.RETRAINING, "epochs", 2)
    words, oracle = (tmp_path / "work", str(tofu), str(runs / "original")), str(runs / "oracle")
    made = ArenaSource(*words, [oracle]).arena("tofu")
    known, retrained = made.oracles
    assert known.weights != retrained.weights != made.original.weights
    assert retrained.model.config.hidden_size == made.original.model.config.hidden_size
    monkeypatch.setattr("unremember.api.forget", None)
    assert ArenaSource(*words, [oracle]).arena("tofu").digest == made.digest, "read, not trained again"
    assert len(ArenaSource(*words, [oracle] * 2).arena("tofu").oracles) == 2


def test_an_arena_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert (
        "people-<count> (people-40) and tofu"
        in shell("experiment", "methods", "peple-40", "-w", tmp_path, "-o", tmp_path).refused()
    )
    assert (
        "needs --original and --oracle"
        in shell("experiment", "methods", "tofu", "-w", tmp_path, "-o", tmp_path).refused()
    )
