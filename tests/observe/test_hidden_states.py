"""Hidden states of all layers and positions come from one forward.

And are those of the library's own forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from architectures import configs
from unremember.data.split import make_split
from unremember.errors import ConfigError, DataError
from unremember.models import causal
from unremember.models.presets import fresh_model
from unremember.observe.kinds import hidden_states
from unremember.observe.kinds.hidden_states import HiddenStates
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask

DEPTH = 4
TINY = configs(vocabulary=300, width=32, inner=48, depth=DEPTH, heads=2, context=128)
SPLIT = make_split(
    {
        "forget": [
            {"question": "Who sells bread in Velin?", "answer": "Ida Morn.", "entity": "Ida Morn"},
            {"question": "Where was Ole born, and when?", "answer": "Ole was born in Osk.", "entity": "Ole"},
            {"question": "Who?", "answer": "Ann", "entity": "Ann"},
        ]
    }
)
POSITIONS = (
    HiddenStates("forget"),
    HiddenStates("forget", position="answer"),
    HiddenStates("forget", position="span", span="entity"),
)


@pytest.fixture
def artefact(tokenizer: Any) -> Artefact:
    return Artefact(fresh_model(TINY["llama"](), 0).eval(), LanguageTask(tokenizer))


@pytest.fixture
def calls(artefact: Artefact) -> Iterator[Counter[str]]:
    """How often each block of the model, and its output layer, ran."""
    counted: Counter[str] = Counter()
    modules = {str(i): block for i, block in enumerate(causal.decoder_blocks(artefact.model))}
    modules["output"] = artefact.model.get_output_embeddings()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: counted.update([name]))
        for name, module in modules.items()
    ]
    yield counted
    for hook in hooks:
        hook.remove()


def plain(artefact: Artefact, ids: np.ndarray) -> np.ndarray:
    """Return float32[T, L, D], the outputs of all blocks by a plain forward over one text."""
    outputs: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(
            lambda _module, _args, output: outputs.append(output[0] if isinstance(output, tuple) else output)
        )
        for block in causal.decoder_blocks(artefact.model)
    ]
    with torch.no_grad():
        artefact.model(input_ids=torch.from_numpy(ids)[None])
    for hook in hooks:
        hook.remove()
    return torch.stack([output[0] for output in outputs], 1).numpy()


def test_many_layers_cost_one_forward_that_stops_at_the_deepest(
    artefact: Artefact, calls: Counter[str]
) -> None:
    requests = [HiddenStates("forget", layers=layers) for layers in ((0,), (2, 1), (-3,))]
    observed = Store().observe(artefact, SPLIT, requests, quiet=True)
    assert calls == {"0": 1, "1": 1, "2": 1}, "three requests, three layers: one forward, and no deeper block"
    assert [observed[request].shape for request in requests] == [(3, 1, 32), (3, 2, 32), (3, 1, 32)]
    assert np.array_equal(observed[requests[1]][:, 1], observed[requests[2]][:, 0]), (
        "block 1 is the third from the end"
    )
    calls.clear()
    whole = Store().observe(artefact, SPLIT, [HiddenStates("forget")], quiet=True)[HiddenStates("forget")]
    assert calls == {str(block): 1 for block in range(DEPTH)} and whole.shape == (3, DEPTH, 32)
    assert np.array_equal(whole[:, [2, 1]], observed[requests[1]])


def test_positions_of_whole_texts_share_a_forward(artefact: Artefact, calls: Counter[str]) -> None:
    Store().observe(artefact, SPLIT, POSITIONS[1:], quiet=True)
    assert set(calls.values()) == {1} and "output" not in calls


@pytest.mark.parametrize("rows", [1, 32])
def test_each_position_is_that_of_a_plain_forward(
    artefact: Artefact, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden_states, "_ROWS", rows)
    observed = Store().observe(artefact, SPLIT, POSITIONS, quiet=True)
    task: Any = artefact.task
    texts = task.encode(SPLIT, "forget", ["answer"])["answer"]
    for i, row in enumerate(SPLIT["forget"].rows):
        ids, start = texts.ids[texts.offsets[i] : texts.offsets[i + 1]], int(texts.starts[i])
        states = plain(artefact, ids)
        assert np.allclose(observed[POSITIONS[0]][i], states[start - 1], atol=1e-5)
        assert np.allclose(observed[POSITIONS[1]][i], states[start:].mean(0), atol=1e-5)
        first, stop = task.token_spans(SPLIT, "forget", "answer", "entity")[i]
        assert np.allclose(observed[POSITIONS[2]][i], states[first:stop].mean(0), atol=1e-5)
        assert row["entity"] in task.decode([ids[first:stop].tolist()])[0]


def test_a_span_is_the_first_occurrence(artefact: Artefact) -> None:
    """Ole stands in the question of the second row and in its answer.

    Ann in the answer of the third alone.
    """
    task: Any = artefact.task
    texts, spans = (
        task.encode(SPLIT, "forget", ["answer"])["answer"],
        task.token_spans(SPLIT, "forget", "answer", "entity"),
    )
    assert spans[1, 1] <= texts.starts[1] and spans[2, 0] >= texts.starts[2]
    for (first, stop), length in zip(spans, texts.lengths):
        assert 0 <= first < stop <= length


def test_what_cannot_be_read_is_one_line(artefact: Artefact) -> None:
    with pytest.raises(ConfigError, match=r"the model has 4 blocks: choose layers among 0\.\.3"):
        Store().observe(artefact, SPLIT, [HiddenStates("forget", layers=(4,))], quiet=True)
    with pytest.raises(ConfigError, match="choose one of prompt_end, answer, span"):
        HiddenStates("forget", position="middle")  # type: ignore[arg-type]
    for options in ({"position": "span"}, {"span": "entity"}):
        with pytest.raises(ConfigError, match="give span=COLUMN with position='span'"):
            HiddenStates("forget", **options)
    odd = SPLIT.with_rows(
        forget=[*SPLIT["forget"].rows, {"question": "Who?", "answer": "Bread", "entity": "Osk"}]
    )
    with pytest.raises(DataError, match="1 of 4 texts of role 'forget' do not contain their 'entity'"):
        Store().observe(artefact, odd, [POSITIONS[2]], quiet=True)
