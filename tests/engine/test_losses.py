"""The losses against figures computed in float64 on a fixture of four tokens, their gradients and their
limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unremember.data.split import make_split
from unremember.engine.losses import ALTERNATE, ANSWER
from unremember.engine.losses.dpo import DPO
from unremember.engine.losses.nll import NLL, Ascent
from unremember.engine.losses.npo import NPO
from unremember.engine.losses.rmu import Hold, Steer
from unremember.engine.losses.simnpo import SimNPO
from unremember.engine.seams import Context, Loss
from unremember.tasks.language import TextView
from unremember.tasks.protocol import Need
from unremember.tasks.ragged import Ragged

EMPTY = TextView({})
NONE = [0.0, 0.0, 0.0, 0.0]
FORGET_LABELS = [[-100, 1, 2, 3], [-100, -100, 1, -100]]
FORGET = [
    [[0, 1, 0, -1], [1, 0, 2, 0], [0.5, -0.5, 0, 1.5], [0.3, 0.1, -0.2, 0]],
    [[2, 0, 0, 0], [0, -1, 1, 0], [0, 0, 0, 1], NONE],
]
FORGET_OLD = [[[0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 2], NONE], [[0, 0, 1, 0], [0, 1, 0, 0], NONE, NONE]]
RETAIN_LABELS, RETAIN = [[-100, 0, 2]], [[[1, 0, 0, 0], [0, 0, 1, 0], NONE]]
ALTERNATE_LABELS = [[-100, 3, 1], [-100, -100, 3]]
ALTERNATES = [[[0, 0, 0, 1], [0, 1, 0, 0], NONE], [NONE, [0, 0, 0, 2], NONE]]


def leaf(logits: list[list[list[float]]]) -> Tensor:
    return torch.tensor(logits, dtype=torch.float64, requires_grad=True)


def ragged(logits: Tensor, labels: list[list[int]]) -> Ragged:
    """Log-probabilities of the labelled tokens, each read one position before its label."""
    wanted = torch.tensor(labels)[:, 1:]
    chosen = logits.log_softmax(-1)[:, :-1].gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return Ragged(chosen[wanted != -100], (wanted != -100).sum(1))


def view(**texts: Ragged) -> TextView:
    return TextView({Need(text, "logprobs"): values for text, values in texts.items()})


def reduced(loss: Loss, seen: TextView, old: TextView = EMPTY) -> Tensor:
    """What the engine makes of the values of one step with unit weights."""
    values, _ = loss.apply(seen, old, {})
    return values.sum() / (seen.read(loss.needs[0]).counts.sum() if loss.per == "token" else len(values))


@pytest.fixture
def logits() -> Tensor:
    return leaf(FORGET)


@pytest.fixture
def seen(logits: Tensor) -> TextView:
    return view(answer=ragged(logits, FORGET_LABELS), alternate=ragged(leaf(ALTERNATES), ALTERNATE_LABELS))


@pytest.fixture
def old() -> TextView:
    flat = torch.zeros(2, 3, 4, dtype=torch.float64)
    return view(
        answer=ragged(leaf(FORGET_OLD).detach(), FORGET_LABELS), alternate=ragged(flat, ALTERNATE_LABELS)
    )


def retain() -> TextView:
    return view(answer=ragged(leaf(RETAIN), RETAIN_LABELS))


def test_fixture_has_the_stated_sums(seen: TextView, old: TextView) -> None:
    assert seen.read(ANSWER).counts.tolist() == [3, 1]
    assert (-seen.read(ANSWER).sum()).tolist() == pytest.approx([1.666341474049, 2.626523375036], abs=1e-9)
    assert (-old.read(ANSWER).sum()).tolist() == pytest.approx([0.820712222046, 0.743668380629], abs=1e-9)
    assert (-seen.read(ALTERNATE).sum()).tolist() == pytest.approx([1.487336761257, 0.340752953913], abs=1e-9)
    assert (-old.read(ALTERNATE).sum()).tolist() == pytest.approx([2.772588722240, 1.386294361120], abs=1e-9)


def test_gradient_ascent(seen: TextView, logits: Tensor) -> None:
    loss = reduced(Ascent(), seen)
    assert loss.item() == pytest.approx(-1.073216212271, abs=1e-9)
    loss.backward()
    expected = [-0.049152983310, 0.116388338653, -0.049152983310, -0.018082372032]
    assert logits.grad[0, 0].tolist() == pytest.approx(expected, abs=1e-9)
    assert not logits.grad[0, 3].any() and not logits.grad[1, 0].any(), "rows that predict no label"


def test_gradient_difference(seen: TextView) -> None:
    kept = reduced(NLL(), retain())
    assert kept.item() == pytest.approx(0.743668380629, abs=1e-9)
    assert (reduced(Ascent(), seen) + kept).item() == pytest.approx(-0.329547831643, abs=1e-9)


def test_nll_of_the_alternate_and_negation(seen: TextView) -> None:
    assert reduced(NLL("alternate"), seen).item() == pytest.approx(0.609363238390, abs=1e-9)
    assert torch.equal(NLL().apply(seen, EMPTY, {})[0], -Ascent().apply(seen, EMPTY, {})[0])


@pytest.mark.parametrize(("beta", "expected"), [(0.1, 12.551886418751), (1.0, 0.498809992866)])
def test_npo(beta: float, expected: float, seen: TextView, old: TextView) -> None:
    assert reduced(NPO(beta), seen, old).item() == pytest.approx(expected, abs=1e-9)


def test_npo_gradients(seen: TextView, old: TextView, logits: Tensor) -> None:
    reduced(NPO(0.1), seen, old).backward()
    expected = [-0.094151921701, 0.222940399742, -0.094151921701, -0.034636556340]
    assert logits.grad[0, 0].tolist() == pytest.approx(expected, abs=1e-9)
    losses = (-seen.read(ANSWER).sum()).detach().requires_grad_()
    figures = view(answer=Ragged(-losses, torch.tensor([1, 1])))
    sums = view(answer=Ragged(old.read(ANSWER).sum(), torch.tensor([1, 1])))
    reduced(NPO(0.1), figures, sums).backward()
    assert losses.grad.tolist() == pytest.approx([-0.478871857615, -0.453067196199], abs=1e-9)


def test_npo_tends_to_ascent_on_the_sequence_sum(seen: TextView, old: TextView, logits: Tensor) -> None:
    loss = reduced(NPO(1e-4), seen, old)
    assert (loss - 2 / 1e-4 * math.log(2)).item() == pytest.approx(-1.364188870306, abs=1e-8)
    slow = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    plain = torch.autograd.grad(seen.read(ANSWER).sum().mean(), logits)[0]
    assert torch.cosine_similarity(slow.flatten(), plain.flatten(), dim=0) > 0.9999


def test_npo_is_bounded_and_fades(old: TextView) -> None:
    far = torch.full((4,), -1e4, dtype=torch.float64, requires_grad=True)
    loss = reduced(NPO(0.1), view(answer=Ragged(far, torch.tensor([3, 1]))), old)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12) and far.grad.abs().max() < 1e-12


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.5])
def test_at_the_original_npo_and_dpo_are_two_over_beta_log_two(beta: float, old: TextView) -> None:
    assert reduced(NPO(beta), old, old).item() == pytest.approx(2 / beta * math.log(2), abs=1e-12)
    assert reduced(DPO(beta), old, old).item() == pytest.approx(2 / beta * math.log(2), abs=1e-12)


@pytest.mark.parametrize(
    ("beta", "delta", "expected"),
    [
        (4.5, 0.0, 0.017540912464),
        (2.5, 0.0, 0.089634107664),
        (3.5, 1.0, 0.500211198722),
    ],
)
def test_simnpo(beta: float, delta: float, expected: float, seen: TextView) -> None:
    assert reduced(SimNPO(beta, delta), seen).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("factor", "expected"), [(None, 11.496768906053), (1.0, 0.574838445303)])
def test_dpo(factor: float | None, expected: float, seen: TextView, old: TextView) -> None:
    assert reduced(DPO(0.1, factor), seen, old).item() == pytest.approx(expected, abs=1e-9)


def test_dpo_with_the_answer_as_alternate_is_constant(seen: TextView, old: TextView) -> None:
    same = view(answer=seen.read(ANSWER), alternate=seen.read(ANSWER))
    before = view(answer=old.read(ANSWER), alternate=old.read(ANSWER))
    assert reduced(DPO(0.1), same, before).item() == pytest.approx(20 * math.log(2), abs=1e-12)


def test_npo_is_dpo_whose_winner_does_not_move(seen: TextView, old: TextView) -> None:
    still = view(answer=seen.read(ANSWER), alternate=old.read(ALTERNATE))
    assert torch.allclose(DPO(0.1).apply(still, old, {})[0], NPO(0.1).apply(seen, old, {})[0], atol=1e-12)


def hidden(values: list[list[float]], counts: list[int], layer: int = 1) -> TextView:
    return TextView(
        {
            Need("answer", "hidden", layer): Ragged(
                torch.tensor(values, dtype=torch.float64), torch.tensor(counts)
            )
        }
    )


def test_steer() -> None:
    state = {"target": torch.tensor([6.0, 8.0], dtype=torch.float64)}
    values, after = Steer().apply(hidden([[1, 2], [0, -1], [6, 8]], [2, 1]), EMPTY, state)
    assert values.tolist() == [44.5, 0.0] and values.mean().item() == 22.25
    assert after is state


def test_hold() -> None:
    values, _ = Hold().apply(hidden([[2, 2]], [1]), hidden([[1, 0]], [1]), {})
    assert values.tolist() == [2.5]


def context(model: object, seed: int) -> Context:
    split = make_split({"forget": [{"question": "q", "answer": "a"}]})
    return Context(model, None, split, ("forget",), {"forget": split["forget"].keys}, 1, seed)


def test_steer_draws_one_direction_of_the_stated_length(tiny_llama: object) -> None:
    loss = Steer(coefficient=6.5)
    first, again, other = (loss.init(context(tiny_llama, seed))["target"] for seed in (3, 3, 4))
    assert first.shape == (32,) and first.norm().item() == pytest.approx(6.5, rel=1e-6) and (first >= 0).all()
    assert torch.equal(first, again) and not torch.allclose(first, other)


@pytest.mark.parametrize(
    "loss", [NLL(), Ascent(), NPO(), SimNPO(), DPO(), Steer(), Hold()], ids=lambda loss: type(loss).__name__
)
def test_an_example_without_answer_tokens_gives_no_nan(loss: Loss) -> None:
    values = -torch.rand(3, 2) if loss.needs[0].what == "hidden" else -torch.rand(3)
    values.requires_grad_()

    def apply(counts: list[int]) -> Tensor:
        seen, before = (
            TextView({n: Ragged(v, torch.tensor(counts)) for n in loss.needs})
            for v in (values, values.detach() / 2)
        )
        return loss.apply(seen, before, {"target": torch.ones(2)})[0]

    beside = apply([3, 0])
    assert beside.shape == (2,) and torch.isfinite(beside).all() and torch.equal(beside[:1], apply([3]))
    beside.sum().backward()
    assert torch.isfinite(values.grad).all()


def test_order_of_the_examples_changes_nothing(old: TextView) -> None:
    turned = view(
        answer=ragged(leaf(FORGET[::-1]), FORGET_LABELS[::-1]),
        alternate=ragged(leaf(ALTERNATES[::-1]), ALTERNATE_LABELS[::-1]),
    )
    straight = view(
        answer=ragged(leaf(FORGET), FORGET_LABELS), alternate=ragged(leaf(ALTERNATES), ALTERNATE_LABELS)
    )
    flat = torch.zeros(2, 3, 4, dtype=torch.float64)
    before = view(
        answer=ragged(leaf(FORGET_OLD[::-1]), FORGET_LABELS[::-1]),
        alternate=ragged(flat, ALTERNATE_LABELS[::-1]),
    )
    for loss in (NLL(), Ascent(), NPO(), SimNPO(), DPO()):
        values, _ = loss.apply(turned, before, {})
        assert torch.allclose(values.flip(0), loss.apply(straight, old, {})[0], atol=1e-12)
