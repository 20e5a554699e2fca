"""The language task against plain forwards of whole models: figures, padding, and what is never computed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CohereConfig, Gemma2Config, GPT2Config, GPTNeoXConfig, GraniteConfig

from unremember.data.split import Split, make_split
from unremember.engine import loop, reference
from unremember.engine.losses import ALTERNATE, ANSWER
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.engine.settings import Settings
from unremember.errors import ConfigError, DataError, ModelError
from unremember.models import causal
from unremember.models.load import save_model
from unremember.models.presets import fresh_model, small_llama
from unremember.tasks.language import LanguageTask
from unremember.tasks.protocol import Need
from unremember.tasks.text import Template, Texts
from unremember.tasks.tokenizers import train_tokenizer

LOGITS = Need("answer", "logits")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GATED = {**SHAPE, "num_key_value_heads": 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
CONFIGS = {
    "gpt2": lambda size: GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=128),
    "neox": lambda size: GPTNeoXConfig(vocab_size=size, **SHAPE, max_position_embeddings=128),
    "gemma2, capped logits": lambda size: Gemma2Config(
        vocab_size=size, head_dim=16, final_logit_softcapping=0.2, **GATED
    ),
    "granite, divided logits": lambda size: GraniteConfig(vocab_size=size, logits_scaling=3.0, **GATED),
    "cohere, multiplied logits": lambda size: CohereConfig(vocab_size=size, logit_scale=0.25, **GATED),
}


@pytest.fixture
def split() -> Split:
    forget = [
        {
            "question": "Who wrote the quiet river?",
            "answer": "Ida Morn wrote it in the town of Velin.",
            "alternate": "No idea.",
        },
        {"question": "Where?", "answer": "Osk.", "alternate": "That is not known to me, sorry."},
        {
            "question": "What does the baker sell in the long winter?",
            "answer": "Bread and salt.",
            "alternate": "I cannot say.",
        },
    ]
    retain = [
        {"question": "Where was she born?", "answer": "Near the harbour."},
        {"question": "And he?", "answer": "In the north, they say."},
    ]
    return make_split({"forget": forget, "retain": retain})


@pytest.fixture
def task(tokenizer: Any) -> LanguageTask:
    return LanguageTask(tokenizer, context=128)


@pytest.fixture(params=["llama", *CONFIGS])
def double(request: pytest.FixtureRequest, tiny_llama: Any, tokenizer: Any) -> Any:
    """A float64 model of each architecture."""
    made = (
        copy.deepcopy(tiny_llama)
        if request.param == "llama"
        else fresh_model(CONFIGS[request.param](len(tokenizer)), 1)
    )
    return made.double().eval()


def ids_of(texts: Texts, row: int) -> Tensor:
    return torch.from_numpy(texts.ids[texts.offsets[row] : texts.offsets[row + 1]])[None]


def plain(model: Any, texts: Texts, row: int) -> Tensor:
    """float64 [M]: a whole forward of one text alone, cross-entropy at its answer."""
    ids, start = ids_of(texts, row), texts.starts[row]
    logits = model(input_ids=ids).logits[0]
    return -F.cross_entropy(logits[start - 1 : -1], ids[0, start:], reduction="none")


@torch.no_grad()
def test_log_probabilities_equal_a_plain_forward(double: Any, task: LanguageTask, split: Split) -> None:
    forget, retain = (
        task.encode(split, "forget", ["answer", "alternate"]),
        task.encode(split, "retain", ["answer"]),
    )
    rows = {"forget": np.array([2, 0, 1, 0]), "retain": np.array([1])}
    seen = task.forward(
        double,
        {"forget": (forget, rows["forget"]), "retain": (retain, rows["retain"])},
        {"forget": [ANSWER, ALTERNATE], "retain": [ANSWER]},
    )
    for role, data, need in (
        ("forget", forget, ANSWER),
        ("forget", forget, ALTERNATE),
        ("retain", retain, ANSWER),
    ):
        expected = [plain(double, data[need.text], row) for row in rows[role]]
        found = seen[role].read(need)
        assert found.counts.tolist() == [len(values) for values in expected]
        assert (found.values - torch.cat(expected)).abs().max() < 2e-6, "float32 results of a float64 model"
        assert (found.values < 0).all() and found.values.std() > 0


@torch.no_grad()
def test_logits_equal_a_plain_forward(double: Any, task: LanguageTask, split: Split) -> None:
    data = task.encode(split, "forget", ["answer"])
    found = task.forward(double, {"forget": (data, np.array([1, 0]))}, {"forget": [LOGITS]})["forget"].read(
        LOGITS
    )
    expected = [
        double(input_ids=ids_of(data["answer"], row)).logits[0, data["answer"].starts[row] - 1 : -1]
        for row in (1, 0)
    ]
    assert (found.values - torch.cat(expected)).abs().max() < 2e-6


@torch.no_grad()
def test_hidden_states_equal_the_models_own(double: Any, task: LanguageTask, split: Split) -> None:
    data = task.encode(split, "forget", ["answer"])
    needs = [Need("answer", "hidden", layer) for layer in (0, -2, 1)]
    seen = task.forward(double, {"forget": (data, np.array([1, 2]))}, {"forget": needs})["forget"]
    whole = [
        double(input_ids=ids_of(data["answer"], row), output_hidden_states=True).hidden_states
        for row in (1, 2)
    ]
    starts = [data["answer"].starts[row] for row in (1, 2)]
    expected = torch.cat([states[1][0, start:] for states, start in zip(whole, starts)])
    assert (seen.read(needs[0]).values - expected).abs().max() < 1e-6, "a state stands at its own token"
    assert torch.equal(seen.read(needs[1]).values, seen.read(needs[0]).values), (
        "layers count from the end too"
    )
    assert not torch.allclose(seen.read(needs[2]).values, seen.read(needs[0]).values)


@torch.no_grad()
def test_a_layer_that_is_not_there_is_refused(tiny_llama: Any, task: LanguageTask, split: Split) -> None:
    data = task.encode(split, "forget", ["answer"])
    with pytest.raises(ModelError, match=r"the model has 2 blocks: layer 2 is not among 0\.\.1"):
        task.forward(tiny_llama, {"forget": (data, np.array([0]))}, {"forget": [Need("answer", "hidden", 2)]})


@torch.no_grad()
@pytest.mark.parametrize("need", [ANSWER, LOGITS, Need("answer", "hidden", 0)])
def test_padding_changes_nothing(need: Need, tiny_llama: Any, task: LanguageTask, split: Split) -> None:
    double = copy.deepcopy(tiny_llama).double()
    data = task.encode(split, "forget", ["answer"])
    alone = task.forward(double, {"forget": (data, np.array([1]))}, {"forget": [need]})["forget"].read(need)
    beside = task.forward(double, {"forget": (data, np.array([1, 2, 0]))}, {"forget": [need]})["forget"].read(
        need
    )
    assert data["answer"].lengths[1] < data["answer"].lengths[0]
    assert (beside.values[: len(alone.values)] - alone.values).abs().max() < (
        1e-12 if need.what == "hidden" else 1e-6
    )


@torch.no_grad()
@pytest.mark.parametrize("pad", ["<|pad|>", "<|endoftext|>"])
def test_the_end_token_inside_a_prompt_is_no_padding(
    pad: str, tiny_llama: Any, tokenizer: Any, split: Split
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = pad
    task, double = LanguageTask(tokenizer), copy.deepcopy(tiny_llama).double()
    rows = [{"question": "First turn.<|endoftext|>Second turn?", "answer": "Yes."}, *split["forget"].rows]
    data = task.encode(make_split({"forget": rows}), "forget", ["answer"])
    assert (data["answer"].prompt(0)[1:-1] == 0).sum() == 1
    beside = task.forward(double, {"forget": (data, np.array([1, 0]))}, {"forget": [ANSWER]})["forget"].read(
        ANSWER
    )
    expected = plain(double, data["answer"], 0)
    assert (beside.values[-len(expected) :] - expected).abs().max() < 2e-6
    hidden = double(
        input_ids=ids_of(data["answer"], 0), attention_mask=(ids_of(data["answer"], 0) != 0).long()
    ).logits[0]
    masked = -F.cross_entropy(
        hidden[data["answer"].starts[0] - 1 : -1],
        ids_of(data["answer"], 0)[0, -len(expected) :],
        reduction="none",
    )
    assert (masked - expected).abs().max() > 1e-5, "masking by token id would have shown"


@pytest.mark.parametrize("budget", [1, 700, 10**9])
def test_chunks_of_rows_change_neither_values_nor_gradients(
    budget: int, tiny_llama: Any, task: LanguageTask, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = task.encode(split, "forget", ["answer"])

    def run() -> tuple[Tensor, list[Tensor]]:
        model = copy.deepcopy(tiny_llama)
        values = (
            task.forward(model, {"forget": (data, np.arange(3))}, {"forget": [ANSWER]})["forget"]
            .read(ANSWER)
            .values
        )
        values.square().sum().backward()
        return values.detach(), [p.grad for p in model.parameters()]

    whole, gradients = run()
    monkeypatch.setattr(causal, "LOGIT_BUDGET", budget)
    pieces, again = run()
    assert torch.allclose(whole, pieces, atol=1e-6)
    assert all((a - b).abs().max() < 2e-6 * a.abs().max() for a, b in zip(gradients, again))


@pytest.fixture
def rows_of_output_layer(model: Any) -> Iterator[list[int]]:
    """How many rows each call of the output layer was given."""
    counted: list[int] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: counted.append(args[0].numel() // args[0].shape[-1])
    )
    yield counted
    hook.remove()


def test_only_answer_rows_reach_the_output_layer(
    model: Any, task: LanguageTask, split: Split, rows_of_output_layer: list[int]
) -> None:
    data = task.encode(split, "forget", ["answer", "alternate"])
    seen = task.forward(model, {"forget": (data, np.array([0, 1]))}, {"forget": [ANSWER, ALTERNATE]})[
        "forget"
    ]
    expected = sum(int(data[text].counts[[0, 1]].sum()) for text in ("answer", "alternate"))
    assert (
        sum(rows_of_output_layer)
        == expected
        == sum(len(seen.read(need).values) for need in (ANSWER, ALTERNATE))
    )


def test_log_probabilities_are_read_from_the_logits_of_the_same_rows(
    model: Any, task: LanguageTask, split: Split, rows_of_output_layer: list[int]
) -> None:
    data = task.encode(split, "forget", ["answer"])

    def gradients(*passes: list[Need]) -> list[Tensor]:
        model.zero_grad()
        views = [
            task.forward(model, {"forget": (data, np.array([0, 1]))}, {"forget": needs})["forget"]
            for needs in passes
        ]
        (views[0].read(LOGITS).values.square().mean() + views[-1].read(ANSWER).values.sum()).backward()
        return [p.grad.clone() for p in model.parameters()]

    together = gradients([LOGITS, ANSWER])
    assert sum(rows_of_output_layer) == int(data["answer"].counts[[0, 1]].sum())
    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(together, gradients([LOGITS], [ANSWER]))
    )


def test_roles_share_one_forward(model: Any, task: LanguageTask, split: Split) -> None:
    packed: list[list[int]] = []
    model.model.register_forward_pre_hook(
        lambda _, args, given: packed.append(given["packed"]), with_kwargs=True
    )
    forget, retain = task.encode(split, "forget", ["answer"]), task.encode(split, "retain", ["answer"])
    task.forward(
        model,
        {"forget": (forget, np.array([0, 1])), "retain": (retain, np.array([0]))},
        {"forget": [ANSWER], "retain": [ANSWER]},
    )
    assert packed == [[*forget["answer"].lengths[:2], retain["answer"].lengths[0]]]


def test_rmu_stops_at_its_layer(tokenizer: Any, task: LanguageTask, split: Split) -> None:
    model = small_llama(len(tokenizer), hidden=32, layers=3, heads=2)
    assert causal.packs(model, 1), "asked beforehand: a probe runs the whole model, once"
    calls: dict[str, int] = {}

    def count(name: str) -> Any:
        return lambda *_: calls.__setitem__(name, calls.get(name, 0) + 1)

    for name, module in (
        ("block 0", model.model.layers[0]),
        ("block 1", model.model.layers[1]),
        ("block 2", model.model.layers[2]),
        ("norm", model.model.norm),
        ("output", model.lm_head),
    ):
        module.register_forward_pre_hook(count(name))
    terms = (Term("forget", {"name": "steer", "layer": 0}), Term("retain", {"name": "hold", "layer": 0}))
    loop.run_recipe(
        model,
        task,
        split,
        Recipe(terms, selection={"name": "layers", "layers": [0]}),
        Settings(epochs=1),
        quiet=True,
    )
    assert set(calls) == {"block 0"} and calls["block 0"] >= 2, "the reference and the step"


def test_a_shallow_and_a_deep_role_do_not_share(tokenizer: Any, task: LanguageTask, split: Split) -> None:
    model = small_llama(len(tokenizer), hidden=32, layers=2, heads=2)
    assert causal.packs(model, 1), "asked beforehand: a probe runs the whole model, once"
    packed: list[list[int]] = []
    model.model.layers[1].register_forward_pre_hook(
        lambda _, args, given: packed.append(given["packed"]), with_kwargs=True
    )
    terms = (Term("forget", {"name": "steer", "layer": 0}), Term("retain", "nll"))
    loop.run_recipe(model, task, split, Recipe(terms), Settings(epochs=1, batch_size=3), quiet=True)
    assert [len(rows) for rows in packed] == [3], "the forget rows never reach the second block"


def test_the_digest_follows_tokenizer_and_template(tokenizer: Any, task: LanguageTask) -> None:
    """Everything that decides a prompt's ids enters: words, template, chat template, special tokens."""
    assert task.digest == LanguageTask(copy.deepcopy(tokenizer)).digest
    chatty, ending = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    chatty.chat_template = "{{ messages[0].content }}"
    ending.eos_token = "<|pad|>"
    different = {
        LanguageTask(tokenizer, Template("Q {question}\n")).digest,
        LanguageTask(train_tokenizer(["other words"], 300)).digest,
        LanguageTask(chatty).digest,
        LanguageTask(ending).digest,
    }
    assert len(different | {task.digest}) == 5


def test_a_list_column_cannot_be_trained_on(tiny_llama: Any, task: LanguageTask, split: Split) -> None:
    """Several texts a row would be read as if they were one a row: other rows' texts."""
    rows = [{**row, "alternate": ["No idea.", "I cannot say."]} for row in split["forget"].rows]
    with pytest.raises(DataError, match="alternate"):
        task.sizes(task.encode(make_split({"forget": rows}), "forget", ["alternate"]), "alternate")


def test_the_originals_logits_are_made_of_its_states_and_stay(
    double: Any, task: LanguageTask, split: Split, tmp_path: Path
) -> None:
    """D numbers a token are kept; what the model's weights become afterwards, tied or not, changes
    nothing."""
    texts, every = task.encode(split, "forget", ["answer"]), np.arange(len(split["forget"]))
    double.eval()
    with torch.no_grad():
        expected = task.forward(double, {"forget": (texts, every)}, {"forget": [LOGITS]})["forget"].read(
            LOGITS
        )
        need, finish = task.compact(double, LOGITS)
        made = reference.cache_reference(double, task, texts, "forget", need, every, tmp_path, "key", finish)
        for p in double.parameters():
            p.add_(0.1)
        drawn = every[::-1].copy()
        seen = reference.reference_views({"forget": {LOGITS: made}}, {"forget": drawn}, torch.device("cpu"))[
            "forget"
        ].read(LOGITS)
    assert made.values.shape == (len(expected.values), 32)
    pieces = expected.values.split(expected.counts.tolist())
    assert torch.allclose(seen.values.double(), torch.cat([pieces[row] for row in drawn]).double(), atol=1e-4)
    assert task.compact(double, ANSWER) == (ANSWER, None)


def test_kl_to_the_original_starts_at_nothing_and_grows(
    tiny_llama: Any, task: LanguageTask, split: Split, tmp_path: Path
) -> None:
    recipe, settings = (
        Recipe((Term("forget", "ascent"), Term("forget", "kl"))),
        Settings(max_steps=4, batch_size=2, lr=1e-2, warmup=0.0),
    )
    loop.run_recipe(copy.deepcopy(tiny_llama), task, split, recipe, settings, tmp_path, quiet=True)
    values = [json.loads(line)["forget/kl"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert abs(values[0]) < 1e-6 < 1e-3 < values[-1]


def broken_tokenizer(tokenizer: Any, fault: str) -> Any:
    broken = copy.deepcopy(tokenizer)
    if fault == "too many ids":
        broken.add_tokens(["<|extra|>"])
    elif fault == "no end token":
        broken.eos_token = None
    return broken


@pytest.mark.parametrize(
    ("fault", "template", "error", "message"),
    [
        ("too many ids", None, ModelError, "the tokenizer has 301 ids, the model's embedding 300"),
        ("no end token", None, ModelError, "the tokenizer has no end token"),
        ("no chat template", "chat", ConfigError, "the tokenizer has no chat template"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_one_line(
    fault: str,
    template: str | None,
    error: type[Exception],
    message: str,
    model: Any,
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message) as raised:
        LanguageTask.of(model, broken_tokenizer(tokenizer, fault), template)
    assert "\n" not in str(raised.value)
    save_model(model, broken_tokenizer(tokenizer, fault), tmp_path / "model")
    with pytest.raises(error, match=message):
        LanguageTask.load(str(tmp_path / "model"), template)


def test_a_probed_model_in_training_is_not_taken_for_an_encoder(tokenizer: Any) -> None:
    """Dropout moves earlier logits; the probe switches it off."""
    model = fresh_model(
        GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=128), 0
    ).train()
    assert LanguageTask.of(model, tokenizer).context == 128 and model.training


def test_a_collapsed_model_is_loaded(model: Any, tokenizer: Any) -> None:
    """Its figures are a measurement, and no error."""
    model.lm_head.weight.data.fill_(torch.nan)
    LanguageTask.of(model, tokenizer)
