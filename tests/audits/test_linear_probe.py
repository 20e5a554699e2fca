"""The linear probe: states by a plain forward, signal where it was planted, nothing in noise.

And no leak between the turns of a question.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unremember.audits.linear_probe import NO_SIGNAL, LinearProbe, shuffled_labels
from unremember.data.choices import cyclic_prompts
from unremember.data.split import Split, make_split
from unremember.errors import ConfigError
from unremember.observe.kinds import hidden_states
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask

ROWS = [
    row
    for i in range(60)
    for row in cyclic_prompts(f"Which is number {i}?", ["a", "b", "c", "d"], i * i % 4, entity=str(i))
]
SPLIT = make_split({"questions": ROWS})
GOLD = np.array([row["gold"] for row in ROWS])


def probe(states: np.ndarray, split: Split = SPLIT, **parameters: Any) -> Any:
    audit = LinearProbe(shuffles=20, **parameters)
    return audit.measure(Observations("m", "m", split, {audit.request(): states}), [])


@torch.no_grad()
def test_states_are_those_of_a_plain_forward_and_are_kept(
    tiny_llama: Any, tokenizer: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Prompts of different lengths; the last block's state is the one before the norm; observed once."""
    split = make_split(
        {
            "questions": [
                *ROWS[:3],
                *cyclic_prompts("Who was it that wrote the quiet river?", list("abcd"), 0, entity="x"),
            ]
        }
    )
    audit, store = LinearProbe(), Store(tmp_path)
    artefact = Artefact(tiny_llama, LanguageTask(tokenizer, context=128))
    states = store.observe(artefact, split, audit.requests(split), quiet=True)[audit.request()]
    assert states.shape == (7, 2, 32) and states.dtype == np.float32
    for i, row in enumerate(split["questions"].rows):
        ids = torch.tensor([tokenizer(row["prompt"])["input_ids"]])
        plain = tiny_llama(input_ids=ids, output_hidden_states=True).hidden_states
        assert np.allclose(states[i, 0], plain[1][0, -1].numpy(), atol=1e-5)
        assert np.allclose(
            tiny_llama.model.norm(torch.from_numpy(states[i, 1])).numpy(), plain[2][0, -1].numpy(), atol=1e-5
        )
    monkeypatch.setattr(hidden_states, "read_states", None)
    again = store.observe(artefact, split, audit.requests(split), quiet=True)
    assert np.array_equal(again[audit.request()], states)


def test_a_planted_direction_is_found_at_its_layer() -> None:
    states = np.random.default_rng(0).normal(size=(240, 3, 16))
    states[:, 1, :4] += 4 * np.eye(4)[GOLD]
    figure = probe(states)
    assert (
        figure.value > 0.9
        and figure.extra["layer"] == 1
        and figure.extra["p"] == pytest.approx(1 / 21)
        and figure.note == ""
    )
    assert (
        max(figure.extra["layers"][0], figure.extra["layers"][2]) < 0.4
        and 0.25 < figure.extra["null"] <= figure.extra["null_high"] < 0.4
    )
    assert (
        figure.access == "activations"
        and figure.higher_is == "more_knowledge"
        and figure.low < figure.value < figure.high
    )


def test_noise_is_at_its_null() -> None:
    """The best of many layers of noise is above .25, and so is the null: neither is a finding."""
    figure = probe(np.random.default_rng(2).normal(size=(240, 12, 16)))
    assert figure.value > 0.25 and figure.extra["p"] > 0.05 and figure.note == NO_SIGNAL


def test_what_only_tells_the_question_tells_nothing() -> None:
    """States that name the question and its turn without the answer's place in common.

    Folds of whole questions keep them at chance.
    """
    rng = np.random.default_rng(2)
    own = np.repeat(rng.normal(size=(60, 16)), 4, 0)
    states = np.concatenate([own, own * GOLD[:, None], np.zeros((240, 32))], 1)[:, None]
    assert probe(states).value < 0.4


def test_shuffles_keep_the_letters_of_each_question() -> None:
    groups = SPLIT["questions"].groups()
    shuffles = shuffled_labels(GOLD, groups, 5, 0)
    assert all(sorted(letters[i : i + 4]) == [0, 1, 2, 3] for letters in shuffles for i in range(0, 240, 4))
    assert len({letters.tobytes() for letters in shuffles}) == 5 and np.array_equal(
        shuffles, shuffled_labels(GOLD, groups, 5, 0)
    )


def test_what_cannot_be_probed_says_so() -> None:
    states = np.zeros((8, 1, 4))
    with pytest.raises(ConfigError, match=r"folds=5.*only 2 questions"):
        probe(states, make_split({"questions": ROWS[:8]}))
    assert probe(np.full((240, 1, 4), np.nan)).value is None
