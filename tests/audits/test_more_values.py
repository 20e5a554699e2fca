"""The audits that are asked for by name, against their hand-computed examples."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from handmade import (
    ANSWER,
    card,
    loss_records,
    observations_of,
    question_rows,
    simulated,
    token_records,
    with_values,
)

from unremember.audits.controls import default_audits
from unremember.audits.fluency import Fluency, variety
from unremember.audits.membership import (
    MembershipGradNorm,
    MembershipMinK,
    MembershipMinKPP,
    MembershipReference,
    PrivLeak,
    min_k_pp,
    privleak,
)
from unremember.audits.paraphrase import ParaphraseProbability
from unremember.data.split import make_split
from unremember.models import causal
from unremember.observe.kinds.gradient_norms import norms_of_gradients
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Texts

LOGITS = torch.tensor([[0.0, 1, 2], [2, 0, 0], [0, 0, 0]])
LABELS = torch.tensor([2, 1, 0])
ORIGINAL, ORACLES = simulated("original", 1.0), [simulated("oracle", 0.0), simulated("oracle 2", 0.01)]


class Straight(torch.nn.Module):
    """A model whose hidden states are its logits."""

    base_model_prefix = "body"

    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {"vocab_size": 3, "get_text_config": lambda self: self})()
        self.body = torch.nn.Identity()

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.body(input_ids).last_hidden_state)


def test_moments_and_min_k_pp_by_hand() -> None:
    """Spec D14, to the digits of float32."""
    logprobs, best, moments = causal.rows_scores(Straight(), LOGITS, torch.arange(3), LABELS, moments=True)
    assert moments[:, 0].tolist() == pytest.approx([-0.832395582, -0.665572676, -1.098612289], abs=1e-6)
    assert moments[:, 1].tolist() == pytest.approx(
        [0.424404545, 0.670556046, 0.0], abs=1e-6
    ) and best.tolist() == [2, 0, 0]
    record = dataclasses.replace(token_records([logprobs.tolist()]), moments=moments.numpy())
    assert min_k_pp(record, 0.4)[0] == pytest.approx(1.922115514, abs=1e-5)
    assert min_k_pp(record, 0.7)[0] == pytest.approx(0.961057757, abs=1e-5)
    assert causal.rows_scores(Straight(), LOGITS, torch.arange(3), LABELS)[2].shape == (0, 2), "nobody asked"


def test_min_k_pp_tells_a_token_that_is_rare_from_one_that_anything_would_be() -> None:
    """Of equal losses, one under a sure distribution is less likely a member's than one under a flat one."""
    split = make_split({"forget": question_rows(2, 2), "holdout": question_rows(2, 2)})
    flat, sure = (
        dataclasses.replace(loss_records([3.0, 3.0]), moments=np.array([[mean, 0.25]] * 2, dtype=np.float32))
        for mean in (-3.0, -0.1)
    )
    observations = observations_of(split, {})
    observations = with_values(
        observations, {TokenScores("forget", moments=True): flat, TokenScores("holdout", moments=True): sure}
    )
    assert MembershipMinKPP().measure(observations, []).value == 1.0
    with pytest.raises(Exception, match="was not observed"):
        MembershipMinKPP().measure(observations_of(split, {}), [])


def test_the_gradient_norm_by_hand() -> None:
    """Spec D16: a 2 × 2 matrix of zeros, h = (1, 2), label 0.

    The gradient is (-½, ½) ⊗ h, of norm ½ · √2 · √5.
    """

    class Constant(torch.nn.Module):
        """A body of constant states."""

        def forward(self, input_ids: Any, use_cache: bool) -> Any:
            states = torch.tensor([1.0, 2.0]).expand(*input_ids.shape, 2)
            return SimpleNamespace(last_hidden_state=states)

    class Matrix(torch.nn.Module):
        """Its only weight is its output layer; every hidden state is (1, 2)."""

        base_model_prefix = "body"

        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = Constant(), torch.nn.Linear(2, 2, bias=False)
            self.out.weight.data.zero_()
            self.config = type("Config", (), {"vocab_size": 2, "get_text_config": lambda self: self})()

        def forward(self, input_ids: Any, use_cache: bool) -> Any:
            return SimpleNamespace(logits=self.out(self.body(input_ids).last_hidden_state))

    model = Matrix()
    texts = Texts(np.array([0]), np.array([1, 0]), np.array([0, 2]), np.array([1]), ["a"])
    assert norms_of_gradients(model, texts, quiet=True)[0] == pytest.approx(1.581138830084, abs=1e-6)
    assert model.out.weight.grad is None


def test_gradient_norms_are_kept_and_flags_come_back(tiny_llama: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Against a plain loop over the loss of transformers."""
    split = make_split({"forget": question_rows(3, 3), "holdout": question_rows(2, 2)})
    model, task = copy.deepcopy(tiny_llama), LanguageTask(tokenizer)
    artefact = Artefact(model, task)
    next(model.parameters()).requires_grad_(False)
    requests = MembershipGradNorm().requests(split)
    result = Store(tmp_path).observe(artefact, split, requests, quiet=True)
    assert [p.requires_grad for p in model.parameters()].count(False) == 1 and all(
        p.grad is None for p in model.parameters()
    )
    texts, plain = task.encode(split, "forget", ["answer"])["answer"], []
    for i in range(3):
        ids = torch.from_numpy(texts.ids[texts.offsets[i] : texts.offsets[i + 1]])[None]
        labels = torch.cat([torch.full((1, int(texts.starts[i])), -100), ids[:, texts.starts[i] :]], 1)
        fresh = copy.deepcopy(tiny_llama)
        fresh(input_ids=ids, labels=labels).loss.backward()
        plain.append(np.mean([float(p.grad.norm()) for p in fresh.parameters()]))
    assert result[requests[0]].tolist() == pytest.approx(plain, rel=1e-4)
    model.forward = None
    again = Store(tmp_path).observe(artefact, split, requests, quiet=True)
    assert np.array_equal(again[requests[0]], result[requests[0]])
    measured = MembershipGradNorm().measure(result, [])
    assert measured.access == "weights" and 0 <= measured.value <= 1


def two(name: str, forget: list[float], holdout: list[float]) -> Any:
    split = make_split(
        {
            "forget": question_rows(len(forget), len(forget)),
            "holdout": question_rows(len(holdout), len(holdout)),
        }
    )
    return observations_of(
        split,
        {("forget", "answer"): loss_records(forget), ("holdout", "answer"): loss_records(holdout)},
        artefact=name,
    )


MEMBER, HALF = two("member", [0.2, 0.5, 1.0], [0.8, 1.5, 2.0]), two("half", [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])


def test_privleak_by_hand() -> None:
    """Spec D18: AUC 8/9 against ½ and against 0.6."""
    assert PrivLeak().measure(MEMBER, [HALF]).value == pytest.approx(-77.777778, abs=1e-6)
    assert float(privleak(np.array([8 / 9, 0.6]))) == pytest.approx(-72.222222, abs=1e-6)
    assert PrivLeak().measure(HALF, [HALF]).value == 0.0, "an oracle against itself"


def test_members_and_others_may_be_any_two_roles() -> None:
    """The values are those of the same records under the usual names.

    The measurement's name says whose they are.
    """
    renamed = {"forget": "seen", "holdout": "unseen"}

    def moved(observations: Any) -> Any:
        split = make_split({renamed[name]: observations.split[name].rows for name in renamed})
        values = {
            dataclasses.replace(request, role=renamed[request.role]): value
            for request, value in observations.values.items()
        }
        return dataclasses.replace(observations, split=split, values=values)

    roles = {"members": "seen", "nonmembers": "unseen"}
    for usual, named in ((PrivLeak(), PrivLeak(**roles)), (MembershipMinK(), MembershipMinK(**roles))):
        plain, result = usual.measure(MEMBER, [HALF]), named.measure(moved(MEMBER), [moved(HALF)])
        assert (
            result.value == plain.value is not None
            and result.name == f"{plain.name} seen"
            and (result.low, result.high) == (plain.low, plain.high)
        )
        assert {request.role for request in named.requests(moved(MEMBER).split)} == {
            "seen",
            "unseen",
        } and named.requests(MEMBER.split) == []


def test_an_oracle_that_tells_members_from_others_is_noted() -> None:
    assert PrivLeak().measure(MEMBER, [HALF]).note == ""
    apart = two("apart", [1.0, 1.0, 1.0], [2.0, 2.0, 0.5])
    for oracles, areas in (([apart], "0.67"), ([HALF, apart], "0.67"), ([MEMBER, apart], "0.67")):
        assert f"tells forget from holdout (AUC {areas})" in PrivLeak().measure(
            two("x", [1.0] * 3, [1.0] * 3), oracles
        ).note.replace("0.89, ", "")


def test_without_an_oracle_there_is_no_privleak_and_no_reference() -> None:
    for audit in (PrivLeak(), MembershipReference()):
        result = audit.measure(MEMBER, [])
        assert result.value is None and "no retrained oracle" in result.reason


def test_the_reference_takes_away_what_is_hard_for_everybody() -> None:
    """The holdout is twice as hard as the forget set for any model; beyond that nothing is known."""
    hard = two("oracle", [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    candidate = two("mine", [0.5, 1.5, 2.5], [3.5, 4.5, 5.5])
    knowing = two("knowing", [0.25, 1.0, 1.75], [3.5, 4.5, 5.5])
    assert MembershipReference().measure(candidate, [hard]).value == 0.5
    assert MembershipReference().measure(knowing, [hard]).value == 1.0
    assert MembershipMinK().measure(candidate, []).value == 1.0, (
        "the plain attack takes hardness for membership"
    )


@pytest.mark.parametrize(
    "audit",
    [PrivLeak(), MembershipReference(), ParaphraseProbability()],
    ids=lambda audit: type(audit).__name__,
)
def test_their_verdicts_stand_on_the_axis(audit: Any) -> None:
    result = {
        name: card([audit], simulated(name, knows), ORACLES, ORIGINAL)[0]
        for name, knows in (("third", 0.0), ("half", 0.5))
    }
    assert result["third"].verdict == "indistinguishable" and abs(result["third"].position) < 0.25
    assert result["half"].verdict == "under-forgotten" and 0.05 < result["half"].position
    assert card([audit], simulated("half", 0.5), [], ORIGINAL)[0].verdict == "undetermined"


def test_paraphrases_of_a_row_are_averaged() -> None:
    split = make_split({"forget": question_rows(2, 2, paraphrased_answer=["a", "b"])})
    record = {
        ("forget", "paraphrased_answer"): loss_records(-np.log([0.2, 0.4, 0.6, 1.0]), rows=[0, 0, 1, 1])
    }
    result = ParaphraseProbability().measure(observations_of(split, record), [])
    assert result.per_example.tolist() == pytest.approx([0.3, 0.8]) and result.value == pytest.approx(0.55)


def test_variety_by_hand() -> None:
    """'a b a b': pairs ab, ba, ab (entropy of 2/3, 1/3 over log 3), triples aba, bab (1)."""
    pairs = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)) / np.log(3)
    assert variety("a b a b") == pytest.approx((pairs + 1) / 2)
    assert variety("no word comes twice in here") == 1.0 and variety("one two three") == 1.0
    assert (
        variety("ha " * 50) == pytest.approx(0, abs=1e-12)
        and variety("") == 0.0
        and np.isnan(variety("yes indeed"))
    )


def test_fluency_is_a_utility() -> None:
    split = make_split({"forget": question_rows(3, 3)})
    result = Fluency().measure(observations_of(split, {}, {"forget": [ANSWER, "no no no no no no", ""]}), [])
    assert (
        result.value == pytest.approx(1 / 3)
        and result.higher_is == "better_utility"
        and result.access == "text"
    )


def test_they_are_not_among_those_that_nobody_named() -> None:
    names = {type(audit).__name__ for audit in default_audits(ORIGINAL.split)}
    assert not names & {
        "PrivLeak",
        "MembershipReference",
        "MembershipMinKPP",
        "MembershipGradNorm",
        "ParaphraseProbability",
        "Fluency",
    }
