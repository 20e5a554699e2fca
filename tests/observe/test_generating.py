"""Drafted decoding says what plain greedy decoding says, and does less for it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, MistralConfig

from architectures import configs
from families import lively_model
from unremember.data.split import make_split
from unremember.models import causal
from unremember.models.presets import fresh_model
from unremember.observe import generating
from unremember.observe.generating import generate
from unremember.observe.scoring import score
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Texts

END, LIMIT = 0, 28
ROWS = [
    {"question": "Who wrote the quiet river?", "answer": "Ida Morn of Velin."},
    {"question": "Where was the painter born?", "answer": "In the town of Osk."},
    {"question": "What does the baker sell to them?", "answer": "Bread and salt."},
    {"question": "Harbour?", "answer": "She was born near it."},
    {"question": "Small lamps, or a river?", "answer": "Ida wrote lamps."},
]


def trained(model: Any, texts: Texts, steps: int) -> Any:
    """A copy after some steps of plain training on ``texts``."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rows = [torch.from_numpy(texts.ids[a:b]) for a, b in zip(texts.offsets, texts.offsets[1:])]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def texts(tokenizer: Any) -> Texts:
    return LanguageTask(tokenizer).encode(make_split({"forget": ROWS}), "forget", ["answer"])["answer"]


@pytest.fixture(scope="module")
def models(tiny_llama: Any, texts: Texts) -> dict[str, Any]:
    torch.set_num_threads(1)
    base = copy.deepcopy(tiny_llama).double()
    trained_models = {
        "random": base,
        "half-trained": trained(base, texts, 50),
        "trained": trained(base, texts, 120),
    }
    every = {**trained_models, "moved": trained(trained_models["trained"], shifted(texts), 5)}
    assert all(generating.caches_states(model) for model in every.values()), "each is probed beforehand"
    return every


@pytest.fixture(scope="module")
def plain(models: dict[str, Any], texts: Texts) -> dict[str, list[list[int]]]:
    """What plain greedy decoding says, by model."""
    return {name: plainly(model, texts) for name, model in models.items()}


def shifted(texts: Texts) -> Texts:
    """The same prompts with each other's answers: what a model learns when it forgets."""
    parts = [np.concatenate([texts.prompt(i), texts.answer((i + 1) % len(texts))]) for i in range(len(texts))]
    return Texts(
        texts.rows, np.concatenate(parts), np.cumsum([0, *map(len, parts)]), texts.starts, texts.answers
    )


def plainly(model: Any, texts: Texts) -> list[list[int]]:
    """Plain greedy decoding by the library, one prompt at a time."""
    spoken = []
    for i in range(len(texts)):
        prompt = torch.from_numpy(texts.prompt(i))[None]
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=LIMIT,
            eos_token_id=END,
            pad_token_id=1,
        )
        ids = out[0, prompt.shape[1] :].tolist()
        spoken.append(ids[: ids.index(END)] if END in ids else ids)
    return spoken


def drafted(
    model: Any, texts: Texts, earlier: Sequence[list[int]] = (), limit: int = LIMIT
) -> list[list[int]]:
    return generate(
        model,
        texts,
        score(model, {"answer": texts}, END, quiet=True)["answer"],
        END,
        limit,
        earlier,
        quiet=True,
    )


class Fed:
    """Counts the tokens that enter the body of a model, padding included, while it is open."""

    def __init__(self, model: Any) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.hook = causal.body(model).register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module: Any, args: Any, kwargs: Any) -> None:
        self.shapes.append(tuple(kwargs["input_ids"].shape))

    def __enter__(self) -> Fed:
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    @property
    def tokens(self) -> int:
        return sum(rows * width for rows, width in self.shapes)


def test_the_models_stand_for_what_they_are_named(plain: dict[str, list[list[int]]], texts: Texts) -> None:
    truth = [texts.answer(i)[:-1].tolist() for i in range(len(texts))]
    right = {name: sum(a == b for a, b in zip(spoken, truth)) for name, spoken in plain.items()}
    assert right["random"] == 0 and right["trained"] == len(texts)
    assert right["half-trained"] < len(texts) and right["moved"] < len(texts)
    assert len({str(spoken) for spoken in plain.values()}) == len(plain)


@pytest.mark.parametrize("rows", [2, 64])
@pytest.mark.parametrize("before", ["", "random", "half-trained", "trained", "moved"])
@pytest.mark.parametrize("name", ["random", "half-trained", "trained", "moved"])
def test_drafted_decoding_is_greedy_decoding(
    name: str,
    before: str,
    rows: int,
    models: dict[str, Any],
    texts: Texts,
    plain: dict[str, list[list[int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generating, "_PROMPTS", rows)
    assert drafted(models[name], texts, plain.get(before, ())) == plain[name]


@pytest.mark.parametrize("cut", [0, 1, 3, 8])
def test_a_draft_that_stops_early_runs_on_or_is_wrong_changes_nothing(
    cut: int, models: dict[str, Any], texts: Texts, plain: dict[str, list[list[int]]]
) -> None:
    for name in ("random", "moved"):
        truth = plain[name]
        for earlier in (
            [ids[:cut] for ids in truth],
            [[*ids[:cut], 7, 7, *ids[cut:]] for ids in truth],
            [[*ids, *ids] for ids in truth],
        ):
            assert drafted(models[name], texts, earlier) == truth


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_more_than_the_limit_is_said(
    limit: int, models: dict[str, Any], texts: Texts, plain: dict[str, list[list[int]]]
) -> None:
    for name, model in models.items():
        truth = [ids[:limit] for ids in plain[name]]
        assert drafted(model, texts, limit=limit) == truth
        assert drafted(model, texts, plain[name], limit) == truth


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(
            vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=0
        ),
        MistralConfig(
            vocab_size=300,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=48,
            max_position_embeddings=128,
            sliding_window=16,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ],
)
def test_positions_and_windows_are_those_of_the_model(config: Any, texts: Texts) -> None:
    model = trained(fresh_model(config, 0).double(), texts, 25)
    truth = plainly(model, texts)
    assert drafted(model, texts) == truth
    assert drafted(model, texts, [[*ids[:9], 5, 5, 5] for ids in truth]) == truth


def test_what_is_remembered_is_not_decoded(models: dict[str, Any], texts: Texts) -> None:
    scored = score(models["trained"], {"answer": texts}, END, quiet=True)["answer"]
    with Fed(models["trained"]) as fed:
        spoken = generate(models["trained"], texts, scored, END, LIMIT, quiet=True)
    assert fed.shapes == [] and spoken == [texts.answer(i)[:-1].tolist() for i in range(len(texts))]


def test_a_draft_that_is_right_costs_one_forward(
    models: dict[str, Any], texts: Texts, plain: dict[str, list[list[int]]]
) -> None:
    model = models["random"]
    truth, scored = plain["random"], score(model, {"answer": texts}, END, quiet=True)["answer"]
    with Fed(model) as once:
        generate(model, texts, scored, END, LIMIT, truth, quiet=True)
    with Fed(model) as walked:
        generate(model, texts, scored, END, LIMIT, quiet=True)
    assert len(once.shapes) == 1 < len(walked.shapes)


def test_a_draft_of_a_model_that_says_other_things_is_not_verified(
    models: dict[str, Any], texts: Texts, plain: dict[str, list[list[int]]]
) -> None:
    model = models["random"]
    scored = score(model, {"answer": texts}, END, quiet=True)["answer"]
    with Fed(model) as alone:
        generate(model, texts, scored, END, LIMIT, quiet=True)
    wrong = [[(ids[0] + 1) % 300 + 2, *ids[1:]] for ids in plain["random"]]
    with Fed(model) as beside:
        generate(model, texts, scored, END, LIMIT, wrong, quiet=True)
    assert beside.shapes == alone.shapes


def test_finished_rows_leave_the_batch(
    models: dict[str, Any], texts: Texts, plain: dict[str, list[list[int]]]
) -> None:
    model = models["moved"]
    scored = score(model, {"answer": texts}, END, quiet=True)["answer"]
    stops = [start + LIMIT for start in texts.starts.tolist()]
    lines = [generating.drafted_line(texts, scored, i, {END}, stops[i], []) for i in range(len(texts))]
    left = [(len(line.ids) - line.start, line.row) for line in lines if not line.finished({END})]
    lengths = [min(LIMIT, len(ids) + 1) for ids in plain["moved"]]
    with Fed(model) as fed:
        generate(model, texts, scored, END, LIMIT, quiet=True)
    steps = max(lengths[row] - known for known, row in left)
    open_rows = [sum(lengths[row] - known > step for known, row in left) for step in range(steps)]
    assert [rows for rows, _ in fed.shapes] == open_rows and min(open_rows) < max(open_rows)
    assert {width for _, width in fed.shapes[1:]} == {1}


@pytest.mark.parametrize("kind", ["mamba", "jamba"])
def test_a_model_with_a_state_is_decoded_by_the_library(kind: str, texts: Texts) -> None:
    """Whatever another model said before, and without a penalty that its settings name."""
    model = lively_model(kind, 300)
    truth = plainly(model, texts)
    model.generation_config.repetition_penalty = 1.5
    assert not generating.caches_states(model) and len({str(ids) for ids in truth}) > 1
    assert drafted(model, texts) == drafted(model, texts, [[5, 6]] * len(texts)) == truth


@pytest.mark.parametrize("library", [False, True])
def test_every_end_token_of_the_settings_ends_a_text(
    library: bool, models: dict[str, Any], plain: dict[str, list[list[int]]], texts: Texts
) -> None:
    """With an end that the plain text holds in its middle, as an int or among several."""
    model, truth = copy.deepcopy(models["trained"]), plain["trained"]
    model._is_stateful = library
    end = truth[0][3]
    expected = [ids[: ids.index(end)] if end in ids else ids for ids in truth]
    for ends in (end, [END, end]):
        model.generation_config.eos_token_id = ends
        assert drafted(model, texts) == drafted(model, texts, truth) == expected != truth


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_no_text_runs_past_the_positions_of_the_model(kind: str, texts: Texts) -> None:
    longest = int(texts.lengths.max())
    model = fresh_model(configs(300, 32, 48, 2, 4, context=longest)[kind](), 0).eval()
    model.get_output_embeddings().weight.data[END] = 0.0  # ends are rare
    spoken = drafted(model, texts, limit=200)
    assert max(len(texts.prompt(i)) + len(ids) for i, ids in enumerate(spoken)) == longest
    assert [ids[:5] for ids in spoken] == drafted(model, texts, limit=5)
