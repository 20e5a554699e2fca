"""KLUE's knowledge neurons: attribution against planted neurons and finite differences on nine
architectures, and masks."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from faithun import TEMPLATE, word_tokenizer
from torch import Tensor
from transformers import LlamaConfig

from architectures import configs
from unremember.data.split import Row, Split, make_split
from unremember.engine.probe import GradientProbe
from unremember.engine.seams import Context
from unremember.engine.selections.knowledge_neurons import MLP, KnowledgeNeurons, captured_neurons
from unremember.errors import ConfigError, ModelError
from unremember.models import causal
from unremember.models.presets import fresh_model
from unremember.tasks.language import LanguageTask

ROLES = ("forget", "retain")


def context(
    model: Any, task: LanguageTask, split: Split, batch_size: int = 4, roles: Sequence[str] = ROLES
) -> Context:
    return Context(
        model, task, split, tuple(roles), {role: split[role].keys for role in roles}, batch_size, 0
    )


# --- localisation: planted neurons ---

FACTS, SPARE, SHARED = 30, 170, 3
"""Facts k0 … k29, each planted in neuron i; the first three share the answer v0, which neuron 30 writes for
any question."""


@pytest.fixture(scope="module")
def planted() -> tuple[Any, LanguageTask, Split]:
    """One block without attention whose neuron i fires on key i alone and writes answer i; the rest is
    noise."""
    answers = [0 if i < SHARED else i for i in range(FACTS)]
    rows = [{"question": f"k{i}", "answer": f"v{answer}"} for i, answer in enumerate(answers)]
    tokenizer = word_tokenizer(rows)
    width, vocabulary = 2 * FACTS + 2, len(tokenizer)
    model = fresh_model(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=FACTS + SPARE,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=8,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        ),
        0,
    ).double()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        block = model.model.layers[0]
        block.self_attn.o_proj.weight.zero_()
        for p in (block.mlp.gate_proj.weight, block.mlp.up_proj.weight, block.mlp.down_proj.weight):
            p.copy_(torch.randn(p.shape, generator=rng, dtype=p.dtype) * 0.02)
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for i, answer in enumerate(answers):
            key, value = (tokenizer.convert_tokens_to_ids(word) for word in (f"k{i}", f"v{answer}"))
            model.model.embed_tokens.weight[key, i] = 1
            model.model.embed_tokens.weight[value, 2 * FACTS] = 1
            model.lm_head.weight[value, FACTS + answer] = 1
            block.mlp.gate_proj.weight[i], block.mlp.up_proj.weight[i], block.mlp.down_proj.weight[:, i] = (
                0,
                0,
                0,
            )
            (
                block.mlp.gate_proj.weight[i, i],
                block.mlp.up_proj.weight[i, i],
                block.mlp.down_proj.weight[FACTS + answer, i],
            ) = 0.2, 0.2, 1
        model.lm_head.weight[0, 2 * FACTS] = 2
        common = block.mlp.gate_proj.weight[FACTS], block.mlp.up_proj.weight[FACTS]
        for row in common:
            row.zero_()
            row[:FACTS] = 0.2
        block.mlp.down_proj.weight[:, FACTS] = 0
        block.mlp.down_proj.weight[FACTS, FACTS] = 0.5
    return (
        model.eval(),
        LanguageTask(tokenizer, TEMPLATE, 8),
        make_split({"forget": rows[:SHARED], "retain": rows[SHARED:]}),
    )


def probability(model: Any, task: LanguageTask, row: Row) -> float:
    return float(np.exp(2 * GradientProbe(model, task, make_split({})).mean_logprobs([row])[0]))


def ablated(model: Any, neurons: Tensor) -> Any:
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.model.layers[0].mlp.down_proj.weight[:, neurons] = 0
    return copied


def ranked(model: Any, task: LanguageTask, split: Split, roles: Sequence[str] = ROLES, **more: Any) -> Tensor:
    part = KnowledgeNeurons(**more)
    return torch.cat(
        part.scores(
            context(model, task, split, roles=roles),
            [MLP.of(block) for block in causal.decoder_blocks(model)],
        )
    )


def test_the_planted_neuron_ranks_first_and_carries_its_fact(
    planted: tuple[Any, LanguageTask, Split],
) -> None:
    model, task, split = planted
    rng = torch.Generator().manual_seed(1)
    for i, row in enumerate(split["retain"].rows, SHARED):
        others = [other for other in split["retain"].rows if other != row]
        order = ranked(model, task, split.with_rows(forget=[row], retain=others)).argsort(descending=True)
        assert order[0] == i
        before = probability(model, task, row)
        top, spare = order[: len(order) // 100], torch.randperm(FACTS + SPARE, generator=rng)
        random = spare[spare != i][: len(order) // 100]
        assert probability(ablated(model, top), task, row) <= 0.2 * before
        assert probability(ablated(model, random), task, row) >= 0.95 * before


def test_what_an_answer_lights_up_under_any_question_loses_rank(
    planted: tuple[Any, LanguageTask, Split],
) -> None:
    """Neuron 30 writes the shared answer whatever is asked: first by plain attribution, behind the facts'
    own with the correction."""
    model, task, split = planted
    plain, corrected = (
        ranked(model, task, split, regularisation=alpha).argsort(descending=True).tolist()
        for alpha in (0.0, 1.0)
    )
    assert plain[0] == FACTS and set(plain[1 : 1 + SHARED]) == set(range(SHARED))
    assert set(corrected[:SHARED]) == set(range(SHARED)) and corrected.index(FACTS) >= SHARED


def test_the_correction_is_a_mean_over_mismatched_questions(planted: tuple[Any, LanguageTask, Split]) -> None:
    """Against a loop over every other question, where all of them are drawn; answers that are shared count
    once a row."""
    model, task, split = planted
    data = split.with_rows(forget=split["forget"].rows + split["retain"].rows[:1])
    others = [*split["forget"].rows, *split["retain"].rows]

    def one(row: Row) -> Tensor:
        return ranked(model, task, make_split({"forget": [row]}), ["forget"])

    def shallow(answer: str) -> Tensor:
        pairs = [
            one({"question": row["question"], "answer": answer}) for row in others if row["answer"] != answer
        ]
        return torch.stack(pairs).mean(0)

    expected = torch.stack([one(row) - 0.5 * shallow(row["answer"]) for row in data["forget"].rows]).mean(0)
    found = ranked(
        model, task, data.with_rows(retain=split["retain"].rows[1:]), regularisation=0.5, mismatched=1000
    )
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_mismatched_questions_have_another_answer_and_are_about_somebody_else() -> None:
    rows = [
        {"question": f"q{i}", "answer": "Yes" if i < 4 else f"a{i}", "entity": f"e{i // 2}"}
        for i in range(12)
    ]
    split = make_split(
        {
            "forget": [rows[0], rows[1], rows[5]],
            "retain": [row for i, row in enumerate(rows) if i not in (0, 1, 5)],
        }
    )
    part = KnowledgeNeurons(mismatched=5)
    made, weights = part.mismatches(context(None, None, split), split["forget"].rows)  # type: ignore[arg-type]
    asked = {row["question"]: row for row in rows}
    assert [row["answer"] for row in made] == ["Yes"] * 5 + ["a5"] * 5 and len(
        {row["question"] for row in made[:5]}
    ) == 5
    assert all(asked[row["question"]]["answer"].casefold() != row["answer"].casefold() for row in made)
    assert not {"q4", "q5"} & {row["question"] for row in made[5:]}, "nor of the same person"
    assert np.allclose(weights, [2 / 15] * 5 + [1 / 15] * 5), "an answer weighs as many rows as it has"


# --- localisation: every architecture ---

V, D, FF = 61, 32, 48
TINY = configs(V, D, FF, depth=2, heads=4, context=64)
CONFIGS = {name: TINY[name] for name in ("gpt2", "gpt-neox", "qwen2", "phi", "phi3", "gemma2", "opt")} | {
    "llama": partial(TINY["llama"], mlp_bias=True),
    "mistral": partial(TINY["mistral"], sliding_window=5),
}


@pytest.fixture(scope="module", params=CONFIGS)
def network(request: pytest.FixtureRequest) -> tuple[Any, Context]:
    """A float64 model with large weights, and texts of unequal length."""
    model = fresh_model(CONFIGS[request.param](), 3).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype), alpha=0.1)
    rows = [
        {"question": " ".join(f"w{(5 * i + k) % 40}" for k in range(1 + i)), "answer": f"w{i + 20}"}
        for i in range(4)
    ]
    split = make_split({"forget": rows, "retain": [{"question": "w3 w9", "answer": "w1"}]})
    words = [{"question": " ".join(f"w{i}" for i in range(50)), "answer": "w0"}]
    return model, context(model, LanguageTask(word_tokenizer(words), TEMPLATE, 64), split)


def sequence(task: LanguageTask, row: Row) -> Tensor:
    """int64[1, T]: question, answer and the closing token."""
    return torch.tensor([[*task.tokenizer(f"{row['question']} {row['answer']}")["input_ids"], 0]])


def chance(model: Any, ids: Tensor) -> Tensor:
    """float64: P of the last two tokens, straight from the model's logits."""
    chances = model(input_ids=ids).logits[0].softmax(-1)
    return chances[-3, ids[0, -2]] * chances[-2, ids[0, -1]]


def test_attribution_is_the_slope_of_the_answers_probability_as_a_neuron_grows(
    network: tuple[Any, Context],
) -> None:
    """Summed over positions, h · ∂P/∂h is the slope of P as the neuron's whole column of the down
    projection is scaled."""
    model, given = network
    for row in given.split["forget"].rows:
        one = dataclasses.replace(given, split=given.split.with_rows(forget=[row]))
        mlps = [MLP.of(block) for block in causal.decoder_blocks(model)]
        found = torch.cat(KnowledgeNeurons(regularisation=0.0, positions="mean").scores(one, mlps)) * (
            len(row["question"].split()) + 1
        )
        for neuron in (0, 17, 61):
            mlp, i = mlps[neuron // FF], neuron % FF
            _, mask = list(mlp.masks(torch.eye(FF)[i]))[-1]
            weight, ends = mlp.down.weight.detach().clone(), []
            for move in (0.01, -0.01):
                with torch.no_grad():
                    mlp.down.weight.copy_(weight * (1 + move * mask))
                    ends.append(float(chance(model, sequence(given.task, row))))
                    mlp.down.weight.copy_(weight)
            assert found[neuron].item() == pytest.approx(
                (ends[0] - ends[1]) / 0.02, rel=2e-3, abs=2e-3 * float(found.abs().max())
            )


def test_masks_hold_the_rows_into_a_neuron_and_its_column_out(network: tuple[Any, Context]) -> None:
    """Moving the masked entries into a neuron of a block moves the activation of that neuron alone."""
    model, _ = network
    mlp = MLP.of(causal.decoder_blocks(model)[1])
    ids, seen = torch.arange(2, 9)[None], []
    hook = mlp.down.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach().view(-1, FF))
    )
    with torch.no_grad():
        model(input_ids=ids)
        lively = int(seen[0].sum(0).argmax())
        *into, (down, out) = mlp.masks(torch.eye(FF)[lively])
        for p, mask in into:
            p.add_(0.1 * mask)
        model(input_ids=ids)
        for p, mask in into:
            p.sub_(0.1 * mask)
    hook.remove()
    moved = (seen[0] != seen[1]).any(0)
    assert moved.nonzero().flatten().tolist() == [lively]
    assert (
        all(mask.shape == p.shape and mask.sum() * FF == p.numel() for p, mask in into)
        and out.shape == down.shape
        and out.sum() == D
    )


@pytest.mark.parametrize("positions", ["max", "mean", "last"])
def test_positions_and_padding(positions: Any, network: tuple[Any, Context]) -> None:
    """Scores of a padded batch are the mean of those alone, for max and last by a loop over positions."""
    model, given = network
    mlps = [MLP.of(block) for block in causal.decoder_blocks(model)]
    part = KnowledgeNeurons(regularisation=0.0, positions=positions)
    expected = torch.zeros(2 * FF)
    for row in given.split["forget"].rows:
        with captured_neurons(mlps) as hidden:
            gradients = torch.autograd.grad(chance(model, sequence(given.task, row)), hidden)
        each = torch.cat([(h * g).view(-1, FF)[:-1] for h, g in zip(hidden, gradients)], -1).detach()
        expected += {"max": each.amax(0), "mean": each.mean(0), "last": each[-2]}[positions].float() / 4
    assert torch.allclose(torch.cat(part.scores(given, mlps)), expected, rtol=1e-4, atol=1e-10)


def test_the_share_is_of_all_neurons_of_all_layers(network: tuple[Any, Context]) -> None:
    model, given = network
    mlps = [MLP.of(block) for block in causal.decoder_blocks(model)]
    scores = torch.cat(KnowledgeNeurons().scores(given, mlps))
    masks = KnowledgeNeurons(share=0.1).apply(given).masks
    names = {id(p): name for name, p in model.named_parameters()}
    downs = [masks.get(names[id(mlp.down.weight)]) for mlp in mlps]
    kept = torch.cat(
        [
            torch.zeros(FF) if mask is None else mask.amax(dim=0 if mask.shape == (D, FF) else 1).float()
            for mask in downs
        ]
    )
    assert kept.sum() == round(0.1 * 2 * FF) and scores[kept == 1].min() >= scores[kept == 0].max()


def test_what_cannot_be_is_one_line(planted: tuple[Any, LanguageTask, Split]) -> None:
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"positions": "first"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            KnowledgeNeurons(**wrong)
    with pytest.raises(ModelError, match="Linear has 0 MLP output projections"):
        MLP.of(torch.nn.Linear(2, 2))
