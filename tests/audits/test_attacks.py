"""Attacks by hand, and on a model that only hides what it knows beside one that never knew it."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unremember import api
from unremember.audits.attacks import AttackPoint, Subject
from unremember.audits.attacks.logit_lens import keep_first_blocks
from unremember.audits.attacks.patching import splice_blocks
from unremember.audits.attacks.pruning import prune_smallest
from unremember.audits.attacks.quantisation import quantise_with_torchao, round_weight
from unremember.audits.attacks.relearning import Relearning
from unremember.data.split import Split, make_split
from unremember.errors import ConfigError, DataError
from unremember.models import causal
from unremember.models.digest import weights_digest
from unremember.models.presets import small_llama
from unremember.registry import attacks
from unremember.tasks.artefact import Artefact
from unremember.tasks.tokenizers import train_tokenizer
from unremember.worlds.words import FIRST_NAMES, LAST_NAMES

WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "indigo",
    "jade",
    "kelp",
    "lotus",
)


@pytest.fixture(scope="module")
def split() -> Split:
    """60 people with three words each that only memory can tell: 20 to be forgotten, 20 never seen."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "question": f"What are the words of {a} {b}?",
            "paraphrased_question": f"Which words has {a} {b}?",
            "entity": a,
            "answer": " ".join(rng.choice(WORDS, 3)),
        }
        for a, b in zip(FIRST_NAMES[:60], LAST_NAMES[:60])
    ]
    return make_split({"forget": rows[:20], "retain": rows[20:40], "holdout": rows[40:]})


@pytest.fixture(scope="module")
def artefacts(split: Split) -> dict[str, Artefact]:
    """The original, two oracles, a third retrained model, and an original with forget answers pushed down."""
    torch.set_num_threads(1)
    texts = [
        f"{row['question']} {row['paraphrased_question']} {row['answer']}"
        for role in split.roles.values()
        for row in role.rows
    ]
    tokenizer = train_tokenizer(texts * 2, 600)
    outcome = {}
    for name, seed, without in (
        ("original", 0, ()),
        ("oracle", 1, ("forget",)),
        ("oracle 2", 2, ("forget",)),
        ("third", 3, ("forget",)),
    ):
        model = small_llama(len(tokenizer), hidden=64, layers=3, heads=4, context=128, seed=seed, spread=0.02)
        outcome[name] = api.train(
            model,
            split,
            tokenizer=tokenizer,
            template="{question}\n",
            without=without,
            epochs=80,
            lr=4e-3,
            batch_size=20,
            seed=seed,
            weight_decay=0.0,
            quiet=True,
        )
    outcome["hiding"] = api.forget(
        outcome["original"],
        split,
        "gradient_difference",
        max_steps=30,
        batch_size=10,
        lr=1e-3,
        warmup=0.0,
        quiet=True,
    )
    return outcome


def attacked(
    artefacts: dict[str, Artefact], split: Split, name: str, attack: Any, audits: Any = ("probability",)
) -> list[api.RecoveryPoint]:
    return api.attack(
        artefacts[name],
        split,
        attack,
        oracle=[artefacts["oracle"], artefacts["oracle 2"]],
        original=artefacts["original"],
        audits=audits,
        quiet=True,
    )


# --- by hand ---


def test_rounding_to_three_bits_by_hand() -> None:
    """Multiples of 3/3 = 1 in the first row, of 0.6/3 = 0.2 in the second; a row of zeros stays."""
    weight = torch.tensor([[3.0, 1.4, -0.6], [0.6, 0.29, -0.31], [0.0, 0.0, 0.0]])
    assert torch.allclose(
        round_weight(weight, 3), torch.tensor([[3.0, 1.0, -1.0], [0.6, 0.2, -0.4], [0.0, 0.0, 0.0]])
    )
    fine = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    errors = [float((round_weight(fine, bits) - fine).abs().max()) for bits in (3, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4


def test_pruning_by_hand() -> None:
    weight = torch.tensor([[1.0, -5.0], [0.5, -2.0]])
    assert (
        prune_smallest(weight, 0.5).tolist() == [[0.0, -5.0], [0.0, -2.0]]
        and prune_smallest(weight, 0.2).tolist() == weight.tolist()
    )
    assert weight[0, 0] == 1.0, "the weight itself is left alone"


@torch.no_grad()
def test_the_lens_reads_the_inner_layer_with_the_last_norm_and_head(tiny_llama: Any) -> None:
    ids = torch.arange(2, 12)[None]
    inner = causal.hidden_after(tiny_llama, ids, [0])[0]
    expected = tiny_llama.lm_head(tiny_llama.model.norm(inner))
    assert torch.allclose(keep_first_blocks(tiny_llama, 1)(input_ids=ids).logits, expected, atol=1e-6)
    assert torch.equal(
        keep_first_blocks(tiny_llama, 2)(input_ids=ids).logits, tiny_llama(input_ids=ids).logits
    )
    assert len(tiny_llama.model.layers) == tiny_llama.config.num_hidden_layers == 2


@torch.no_grad()
def test_stitching_by_hand(tiny_llama: Any, model: Any) -> None:
    """The states after the first block of one model go on through the later layers of the other."""
    ids, second = (
        torch.arange(2, 12)[None],
        small_llama(300, hidden=32, layers=2, heads=2, context=128, seed=5).eval(),
    )
    held: list[torch.Tensor] = []
    taken = tiny_llama.model.layers[0].register_forward_hook(lambda _m, _i, out: held.append(out))
    tiny_llama(input_ids=ids)
    taken.remove()
    put = second.model.layers[0].register_forward_hook(lambda _m, _i, _out: held[0])
    expected = second(input_ids=ids).logits
    put.remove()
    before = weights_digest(second), weights_digest(tiny_llama)
    spliced = splice_blocks(second, tiny_llama, 1)
    assert torch.allclose(spliced(input_ids=ids).logits, expected, atol=1e-6) and not torch.allclose(
        expected, second(input_ids=ids).logits
    )
    assert torch.equal(splice_blocks(second, second, 1)(input_ids=ids).logits, second(input_ids=ids).logits)
    assert (weights_digest(second), weights_digest(tiny_llama)) == before
    with pytest.raises(ConfigError, match="same shape"):
        splice_blocks(second, small_llama(300, hidden=32, layers=3, heads=2, context=128), 1)


def points(name: Any, artefacts: dict[str, Artefact], split: Split) -> list[AttackPoint]:
    outcome: list[AttackPoint] = []
    attacks.make(name).run(Subject(artefacts["hiding"], split, artefacts["original"]), outcome.append)
    return outcome


def test_a_prefix_is_the_answers_beginning_and_the_rest_is_looked_at(
    artefacts: dict[str, Artefact], split: Split
) -> None:
    first, *_, last = points("prefix", artefacts, split)
    row = split["forget"].rows[0]
    one_word, two_words = (point.split["forget"].rows[0] for point in (first, last))
    a, b, c = row["answer"].split()
    assert (one_word["prompt"], one_word["answer"]) == (f"{row['question']}\n{a}", f" {b} {c}")
    assert (two_words["prompt"], two_words["answer"]) == (
        f"{row['question']}\n{a} {b}",
        f" {c}",
    ) and "paraphrased_question" not in one_word
    short = split.with_rows(forget=[*split["forget"].rows, {"question": "Who?", "answer": "amber"}])
    assert len(points("prefix", artefacts, short)[0].split["forget"]) == 20, (
        "an answer of one word has no rest"
    )


def test_shots_are_retain_questions_with_their_answers(artefacts: dict[str, Artefact], split: Split) -> None:
    outcome = points({"name": "few_shot", "shots": [1, 2]}, artefacts, split)
    row, shot_row = split["forget"].rows[3], outcome[1].split["forget"].rows[3]
    *shots, question = shot_row["prompt"].split("\n\n")
    known = {f"{example['question']}\n{example['answer']}" for example in split["retain"].rows}
    assert (
        len(shots) == 2
        and set(shots) <= known
        and question == f"{row['question']}\n"
        and shot_row["answer"] == row["answer"]
    )
    assert [point.amount for point in outcome] == [1, 2]


def test_paraphrases_are_asked_or_missed(artefacts: dict[str, Artefact], split: Split) -> None:
    (outcome,) = points("paraphrase", artefacts, split)
    assert outcome.split["forget"].rows[0]["question"] == split["forget"].rows[0]["paraphrased_question"]
    with pytest.raises(DataError, match="paraphrased_question"):
        points(
            "paraphrase", artefacts, split.with_rows(forget=[{"question": "Who?", "answer": "amber birch"}])
        )


def test_relearning_looks_at_what_it_did_not_show(split: Split) -> None:
    shown, left = Relearning(share=0.25).parts(split)
    texts = {row["question"] for row in split["forget"].rows}
    trained, unseen = (
        {row["question"] for row in part[role].rows} for part, role in ((shown, "shown"), (left, "forget"))
    )
    assert len(trained) == 5 and trained | unseen == texts and not trained & unseen
    fewer = split.with_rows(
        forget=[row for row in split["forget"].rows if row["question"] != sorted(unseen)[0]]
    )
    assert {row["question"] for row in Relearning(share=5 / 19).parts(fewer)[0]["shown"].rows} == trained, (
        "a deleted row moves no other"
    )
    shown, left = Relearning(role="retain", share=0.5).parts(split)
    assert len(shown["shown"]) == 10 and left["forget"].digest == split["forget"].digest
    assert Relearning(share=1.0).parts(split)[1]["forget"].digest == split["forget"].digest
    with pytest.raises(ConfigError, match="share"):
        Relearning(share=0.0)


# --- every attack ---


QUICK = {"relearning": {"steps": 4, "points": 2}, "quantisation": {"bits": [8, 3]}}


@pytest.mark.parametrize("name", attacks.names())
def test_an_attack_touches_nothing_and_is_the_same_twice(
    name: str, artefacts: dict[str, Artefact], split: Split
) -> None:
    spec = {"name": name, **QUICK.get(name, {})}
    before = {key: weights_digest(artefact.model) for key, artefact in artefacts.items()}
    first, again = (attacked(artefacts, split, "hiding", spec) for _ in range(2))
    assert {key: weights_digest(artefact.model) for key, artefact in artefacts.items()} == before
    values = [p.measurements[0].value for p in first]
    print(
        name,
        [
            (
                p.amount,
                round(p.measurements[0].value, 2),
                np.round(p.measurements[0].controls["oracle"], 2).tolist(),
            )
            for p in first
        ],
    )
    assert values == [p.measurements[0].value for p in again] and all(0 <= value <= 1 for value in values)
    amounts = [p.amount for p in first]
    assert amounts == sorted(set(amounts), reverse=amounts[0] > amounts[-1]) and attacks.make(name).unit
    assert all(p.measurements[0].controls.keys() == {"oracle", "original"} for p in first)


# --- what they bring out ---

RELEARN = {"name": "relearning", "share": 0.5, "steps": 20, "points": 4, "lr": 1e-3}


def test_relearning_tells_one_that_hides_from_one_that_never_knew(
    artefacts: dict[str, Artefact], split: Split
) -> None:
    hiding, third = (
        [p.measurements[0] for p in attacked(artefacts, split, name, RELEARN)] for name in ("hiding", "third")
    )
    for m in hiding:
        print(
            f"forget {m.value:.2f}, oracles {m.controls['oracle']}, "
            f"original {m.controls['original']:.2f}, share {m.position:.2f}"
        )
    assert hiding[0].value < 0.05 and hiding[0].verdict == "indistinguishable", (
        "before the attack it looks forgotten"
    )
    assert all(m.position > 0.25 and m.verdict == "under-forgotten" for m in hiding[1:])
    assert all(m.verdict == "indistinguishable" for m in third) and all(abs(m.position) < 0.2 for m in third)


def test_training_on_other_rows_and_the_inner_layers_tell_as_well(
    artefacts: dict[str, Artefact], split: Split
) -> None:
    benign = [p.measurements[0] for p in attacked(artefacts, split, "hiding", {**RELEARN, "role": "retain"})]
    print(
        "retain rows alone",
        [round(m.value, 2) for m in benign],
        "oracles",
        [np.round(m.controls["oracle"], 2).tolist() for m in benign],
    )
    assert max(m.position for m in benign) > 0.25 and max(m.controls["oracle"][0] for m in benign) < 0.1
    inner = attacked(artefacts, split, "hiding", "logit_lens")[0].measurements[0]
    assert (
        inner.verdict == "under-forgotten"
        and attacked(artefacts, split, "third", "logit_lens")[0].measurements[0].verdict
        == "indistinguishable"
    )


def test_patching_tells_a_model_that_only_lost_its_last_block(
    artefacts: dict[str, Artefact], split: Split
) -> None:
    """Nothing but its last block was changed.

    It says nothing, and the original's last block reads everything from its states.
    """
    mute = api.forget(
        artefacts["original"],
        split,
        "gradient_ascent",
        selection={"name": "layers", "layers": [2]},
        max_steps=30,
        batch_size=10,
        lr=3e-3,
        warmup=0.0,
        quiet=True,
    )
    plain = api.audit(
        mute,
        split,
        oracle=[artefacts["oracle"], artefacts["oracle 2"]],
        original=artefacts["original"],
        audits=["probability"],
        quiet=True,
    )
    outcome = attacked({**artefacts, "mute": mute}, split, "mute", "patching")
    assert (
        plain[0].value < 0.2
        and outcome[1].measurements[0].value > 0.9
        and outcome[1].measurements[0].verdict == "under-forgotten"
    )
    assert {p.measurements[0].verdict for p in attacked(artefacts, split, "third", "patching")} == {
        "indistinguishable"
    }


def test_a_model_that_is_its_own_control_has_no_verdict(artefacts: dict[str, Artefact], split: Split) -> None:
    for name in ("original", "oracle"):
        assert {p.measurements[0].verdict for p in attacked(artefacts, split, name, "quantisation")} == {
            "control"
        }
    alone = api.attack(artefacts["hiding"], split, "quantisation", quiet=True)
    assert {m.verdict for p in alone for m in p.measurements} == {"undetermined"}


def test_the_curve_is_kept_by_digest(artefacts: dict[str, Artefact], split: Split, tmp_path: Path) -> None:
    options = {
        "oracle": artefacts["oracle"],
        "original": artefacts["original"],
        "store": tmp_path,
        "quiet": True,
    }
    first = api.attack(artefacts["hiding"], split, "pruning", **options)
    count = len(list(tmp_path.iterdir()))
    again = api.attack(artefacts["hiding"], split, "pruning", **options)
    assert count == len(list(tmp_path.iterdir())) >= 9 and [p.measurements[0].value for p in first] == [
        p.measurements[0].value for p in again
    ]
    assert (
        len({p.measurements[0].artefact for p in first}) == 3
        and dataclasses.asdict(first[0])["amount"] == 0.1
    )


# --- torchao ---


@pytest.mark.parametrize(("bits", "width"), [(8, 32), (4, 32), (3, 24)])
def test_torchao_serves_what_is_looked_at(bits: int, width: int) -> None:
    """The copy multiplies with the very weights of torchao's own model.

    The model stays, so does its embedding.
    """
    torchao = pytest.importorskip(
        "torchao.quantization", reason="torchao is not installed: pip install 'unremember[quant]'"
    )
    model, ids = small_llama(60, hidden=width, layers=2, heads=2, context=16), torch.arange(12)[None]
    before, plain = weights_digest(model), copy.deepcopy(model)
    granularity = (
        torchao.PerAxis(0) if width % 32 or model.config.intermediate_size % 32 else torchao.PerGroup(32)
    )
    torchao.quantize_(
        plain,
        torchao.Int8WeightOnlyConfig()
        if bits == 8
        else torchao.IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), granularity),
    )
    quantised = quantise_with_torchao(model, bits)
    with torch.no_grad():
        served_logits, exact = quantised(ids).logits, model(ids).logits
        assert torch.allclose(served_logits, plain(ids).logits, atol=1e-5)
    assert weights_digest(model) == before and weights_digest(quantised) != before
    assert torch.equal(quantised.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert 1e-5 < (served_logits - exact).abs().max() < (0.05 if bits == 8 else 1.0)


def test_patching_takes_a_model_whose_output_layer_is_untied(model: Any) -> None:
    """The spliced model computes the original's logits: from its own blocks, or from equal ones."""
    original, ids = copy.deepcopy(model), torch.tensor([[5, 9, 20, 41]])
    assert original.config.tie_word_embeddings
    model.set_output_embeddings(copy.deepcopy(model.lm_head))
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight + 1.0)
    model.config.tie_word_embeddings = False
    assert len(list(model.parameters())) == len(list(original.parameters())) + 1
    for depth in (1, 2):
        assert torch.equal(splice_blocks(original, model, depth)(ids).logits, original(ids).logits)
    with pytest.raises(ConfigError, match="of the same shape"):
        splice_blocks(small_llama(300, hidden=48, layers=2, heads=2), model, 1)


def test_without_torchao_it_says_how_to_get_it(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match=r"unremember\[quant\]"):
        quantise_with_torchao(model, 8)
