"""The losses that read whole distributions, against figures computed in float64 on the fixture of four
tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_losses import (
    ALTERNATE_LABELS,
    ALTERNATES,
    EMPTY,
    FORGET,
    FORGET_LABELS,
    FORGET_OLD,
    NONE,
    RETAIN,
    RETAIN_LABELS,
    leaf,
    ragged,
)
from test_losses import view as logprobs_of
from torch import Tensor

from unremember.engine.losses import ANSWER, LABELS, LOGITS
from unremember.engine.losses.answer_preservation import AnswerPreservation
from unremember.engine.losses.ceu import CEU
from unremember.engine.losses.flatten import Flatten
from unremember.engine.losses.kl import KL
from unremember.engine.losses.nll import NLL, Ascent
from unremember.engine.losses.random_labels import RandomLabels
from unremember.engine.losses.soft import soft_cross_entropy
from unremember.engine.losses.undial import UNDIAL
from unremember.engine.losses.weighted import WGA, SatImp
from unremember.engine.losses.whp import WHP, generic_logits
from unremember.engine.seams import Loss
from unremember.tasks.language import TextView
from unremember.tasks.ragged import Ragged

RETAIN_OLD = [[[2, 0, 0, 0], [0, 0, 2, 0], [0, 1, 0, 0]]]
FIRST_ROW = [0.049152983310, -0.116388338653, 0.049152983310, 0.018082372032]
"""The gradient of the mean cross-entropy in the logits that predict the first answer token."""


def view(logits: Tensor, labels: list[list[int]]) -> TextView:
    """The rows that predict labels, the labels, and their log-probabilities."""
    wanted = torch.tensor(labels)[:, 1:]
    counts = (wanted != -100).sum(1)
    rows = Ragged(logits[:, :-1][wanted != -100], counts)
    return TextView(
        {LOGITS: rows, LABELS: Ragged(wanted[wanted != -100], counts), ANSWER: ragged(logits, labels)}
    )


def reduced(loss: Loss, seen: TextView, old: TextView = EMPTY, state: Any = None) -> Tensor:
    """What the engine makes of one step's values with unit weights."""
    values, _ = loss.apply(seen, old, state or {})
    return values.sum() / (
        loss.tokens(seen.read(loss.needs[0]).counts.numpy()).sum() if loss.per == "token" else len(values)
    )


@pytest.fixture
def logits() -> Tensor:
    return leaf(FORGET)


@pytest.fixture
def seen(logits: Tensor) -> TextView:
    return view(logits, FORGET_LABELS)


@pytest.fixture
def old() -> TextView:
    return view(leaf(FORGET_OLD).detach(), FORGET_LABELS)


def test_kl_holds_the_rows_that_predict_the_answer() -> None:
    kept, before = view(leaf(RETAIN), RETAIN_LABELS), view(leaf(RETAIN_OLD).detach(), RETAIN_LABELS)
    assert reduced(KL(), kept, before).item() == pytest.approx(0.114150020943, abs=1e-9)


def test_at_the_original_kl_is_zero_and_so_is_its_gradient(seen: TextView, logits: Tensor) -> None:
    loss = reduced(KL(), seen, view(logits.detach(), FORGET_LABELS))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-15) and logits.grad.abs().max() < 1e-15


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (WGA(1.0), -0.285617105387),
        (WGA(5.0), -0.026185296340),
        (SatImp(5.0, 1.0), -0.010999545982),
        (SatImp(1.0, 1.0), -0.145659747695),
    ],
    ids=str,
)
def test_weighted_ascent(loss: Loss, expected: float, seen: TextView) -> None:
    assert reduced(loss, seen).item() == pytest.approx(expected, abs=1e-9)


def test_no_gradient_passes_through_the_weights(seen: TextView, logits: Tensor) -> None:
    """Row by row the gradient is ascent's times the weight."""
    (found,) = torch.autograd.grad(reduced(WGA(1.0), seen), logits, retain_graph=True)
    assert found[0, 0].tolist() == pytest.approx(
        [-0.026269647041, 0.062203357155, -0.026269647041, -0.009664063073], abs=1e-9
    )
    (plain,) = torch.autograd.grad(reduced(Ascent(), seen), logits, retain_graph=True)
    (satimp,) = torch.autograd.grad(reduced(SatImp(2.0, 3.0), seen), logits)
    p = seen.read(ANSWER).values.exp().detach()
    rows = [(0, 0), (0, 1), (0, 2), (1, 1)]
    for (b, t), one in zip(rows, p):
        assert torch.allclose(found[b, t], one * plain[b, t], atol=1e-12)
        assert torch.allclose(satimp[b, t], one**2 * (1 - one) ** 3 * plain[b, t], atol=1e-12)


@pytest.mark.parametrize(("beta", "expected"), [(10.0, 1.864690781189), (3.0, 1.697731884359)])
def test_undial(beta: float, expected: float, seen: TextView, old: TextView) -> None:
    assert reduced(UNDIAL(beta), seen, old).item() == pytest.approx(expected, abs=1e-9)


def test_undial_by_row(seen: TextView, old: TextView) -> None:
    values, _ = UNDIAL(10.0).apply(seen, old, {})
    assert values.tolist() == pytest.approx(
        [1.959707630539 + 2.159971928587 + 2.045838677380, 1.293244888249], abs=1e-9
    )


def test_without_its_beta_undial_moves_nothing_at_the_original(seen: TextView, logits: Tensor) -> None:
    reduced(UNDIAL(0.0), seen, view(logits.detach(), FORGET_LABELS)).backward()
    assert logits.grad.abs().max() < 1e-15


def test_the_generic_logits() -> None:
    base, reinforced = torch.tensor([1.0, 0, 2]), torch.tensor([1.5, -1, 2])
    assert generic_logits(base, reinforced, 2.0).tolist() == [0, 0, 2]


def test_whp(seen: TextView, logits: Tensor) -> None:
    """By hand at the second example's one row: logits (2, 0, 0, 0), original (0, 0, 1, 0), reinforced (1,
    0, 0, 0), strength 2."""
    loss = WHP("reinforced", 2.0)
    second = [[[0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 2], NONE], [NONE, [1, 0, 0, 0], NONE, NONE]]
    first = [FORGET_OLD[0], [NONE, [0, 0, 1, 0], NONE, NONE]]
    old = TextView(
        {
            LOGITS: view(leaf(first), FORGET_LABELS).read(LOGITS),
            loss.reinforced_need: view(leaf(second), FORGET_LABELS).read(LOGITS),
        }
    )
    values, _ = loss.apply(seen, old, {})
    wanted, said = np.exp([-2.0, 0, 1, 0]), np.array([0.0, -1, 1, 0])
    assert values[1].item() == pytest.approx(
        -(wanted / wanted.sum() * (said - np.log(np.exp(said).sum()))).sum(), abs=1e-12
    )
    values.sum().backward()
    there = torch.tensor(wanted / wanted.sum())
    assert torch.allclose(logits.grad[1, 1], logits[1, 1].softmax(-1) - there, atol=1e-12)


@pytest.mark.parametrize(("skip", "expected"), [(1, 1.901811440166), (0, 1.658978787284)])
def test_ceu(skip: int, expected: float, seen: TextView) -> None:
    assert reduced(CEU(skip), seen).item() == pytest.approx(expected, abs=1e-9)


def test_ceu_leaves_the_first_token_alone_and_pulls_to_its_target(seen: TextView, logits: Tensor) -> None:
    values, _ = CEU().apply(seen, EMPTY, {})
    assert values.tolist() == pytest.approx([1.917694824306 + 1.885928056026, 0], abs=1e-9)
    values.sum().backward()
    assert not logits.grad[0, 0].any() and not logits.grad[1].any()
    p, struck = logits[0, 1].detach().softmax(-1), logits[0, 1].detach().clone()
    struck[FORGET_LABELS[0][2]] = -torch.inf
    assert torch.allclose(logits.grad[0, 1], p - struck.softmax(-1), atol=1e-12)
    assert CEU(2).tokens(np.array([3, 1, 5])).tolist() == [1, 0, 3]


def test_flatten(seen: TextView) -> None:
    assert reduced(Flatten(), seen).item() == pytest.approx(1.207031250000, abs=1e-9)


def test_flat_logits_cost_nothing() -> None:
    assert reduced(Flatten(), view(leaf([[[3.0] * 4] * 4] * 2), FORGET_LABELS)).item() == 0


def test_refusals() -> None:
    """As two terms: the mean over the refusals' tokens, and that over the retain answers'."""
    refused = logprobs_of(alternate=ragged(leaf(ALTERNATES), ALTERNATE_LABELS))
    kept = logprobs_of(answer=ragged(leaf(RETAIN), RETAIN_LABELS))
    first, second = NLL("alternate").apply(refused, EMPTY, {})[0].sum(), NLL().apply(kept, EMPTY, {})[0].sum()
    assert (first / 3 + second / 2).item() == pytest.approx(0.609363238390 + 0.743668380629, abs=1e-9)
    assert ((first + second) / 5).item() == pytest.approx(0.663085295286, abs=1e-9), "one batch, as published"


def test_answer_preservation(seen: TextView) -> None:
    """By hand: S = (1.666341474049, 2.626523375036), S_w = (1.487336761257, 0.340752953913); β = 0.1."""
    both = TextView(
        {**seen.values, **logprobs_of(alternate=ragged(leaf(ALTERNATES), ALTERNATE_LABELS)).values}
    )
    values, _ = AnswerPreservation(0.1).apply(both, EMPTY, {})
    gaps = np.array([1.487336761257 - 1.666341474049, 0.340752953913 - 2.626523375036])
    assert values.tolist() == pytest.approx((10 * np.log1p(np.exp(-0.1 * gaps))).tolist(), abs=1e-9)


def test_random_labels_are_uniform_and_drawn_anew(logits: Tensor) -> None:
    loss, state = RandomLabels(), {"seed": 3, "drawn": 0}
    many = TextView({LOGITS: Ragged(logits[0, 1].expand(8000, 4), torch.tensor([8000]))})
    first, after = loss.apply(many, EMPTY, state)
    second, _ = loss.apply(many, EMPTY, after)
    expected = -logits[0, 1].log_softmax(-1).mean().item()
    assert first.item() / 8000 == pytest.approx(expected, abs=0.05) and second.item() != first.item()
    assert torch.equal(loss.apply(many, EMPTY, state)[0], first)


@pytest.mark.parametrize(
    "loss",
    [KL(), WGA(), SatImp(), UNDIAL(), CEU(), Flatten(), RandomLabels()],
    ids=lambda loss: type(loss).__name__,
)
def test_an_example_without_answer_tokens_changes_nothing(loss: Loss, seen: TextView, old: TextView) -> None:
    def with_empty(one: TextView) -> TextView:
        return TextView(
            {
                need: Ragged(found.values, torch.cat([found.counts, torch.tensor([0])]))
                for need, found in one.values.items()
            }
        )

    state = {"seed": 0, "drawn": 0}
    plain, more = loss.apply(seen, old, state)[0], loss.apply(with_empty(seen), with_empty(old), state)[0]
    assert more.tolist() == [*plain.tolist(), 0.0]


@pytest.mark.parametrize("divergence", [False, True])
def test_soft_cross_entropy_and_its_gradient_are_the_plain_formulas(
    divergence: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks of two rows of eleven, with one entry of the teacher struck out where it is no divergence."""
    monkeypatch.setattr("unremember.engine.losses.soft.READ_BUDGET", 22)
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (3 * torch.randn(5, 11, generator=generator, dtype=torch.float64) for _ in range(2))
    if not divergence:
        teacher[1, 4] = -torch.inf
    logits.requires_grad_()
    wanted = teacher.softmax(-1)
    own = -torch.special.xlogy(wanted, wanted).sum(-1) if divergence else 0.0
    plain = -(wanted * logits.log_softmax(-1)).sum(-1) - own
    weights = torch.randn(5, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(plain @ weights, logits)
    found = soft_cross_entropy(logits, teacher, divergence)
    (gradient,) = torch.autograd.grad(found @ weights, logits)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(
            soft_cross_entropy(logits, teacher, divergence), plain.detach(), rtol=1e-12, atol=1e-12
        )


def test_a_model_that_is_its_own_teacher_stays_exactly_where_it_is() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = soft_cross_entropy(logits, logits.detach().clone(), divergence=True)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert not found.any() and not gradient.any()
