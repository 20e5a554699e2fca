"""MUSE on a small machine: articles learned by heart, the same without the forget set, and models that are
wrong in known ways."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from unremember import api
from unremember.audits.bootstrap import interval, mean_draws
from unremember.audits.continuation import rouge_f1
from unremember.audits.controls import Controls
from unremember.audits.measurement import Measurement
from unremember.audits.membership import SAME_KIND, MembershipMinK, PrivLeak, privleak
from unremember.benchmarks.articles import Articles
from unremember.benchmarks.muse import MEMBERSHIP_ROLES, MUSE_AUDITS
from unremember.data.split import Split
from unremember.engine.settings import Settings
from unremember.models.presets import small_llama
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.registry import audits
from unremember.tasks.artefact import Artefact
from unremember.tasks.tokenizers import train_tokenizer

SMALL, WHOLE = 40, 200
SIZES = {SMALL: {"hidden": 64, "layers": 2, "heads": 4}, WHOLE: {"hidden": 128, "layers": 3, "heads": 4}}
EPOCHS, RATES = {SMALL: 40, WHOLE: 30}, {SMALL: 8e-3, WHOLE: 4e-3}
LEAKAGE, MEMBER = PrivLeak(**MEMBERSHIP_ROLES), MembershipMinK(**MEMBERSHIP_ROLES)
CHOSEN = [audits.make(spec) for spec in MUSE_AUDITS]
UTILITY = "knowledge_memorisation knowmem_retain"


@functools.cache
def split_of(count: int) -> Split:
    return Articles(count).split()


@functools.cache
def untrained(count: int, seed: int = 0) -> Artefact:
    """A Llama with fresh weights and the task of articles."""
    rows = [row for role in ("forget", "retain", "holdout") for row in split_of(count)[role].rows]
    tokenizer = train_tokenizer(
        [str(row.get(column, "")) for row in rows for column in ("text", "question", "answer")], 1000
    )
    model = small_llama(len(tokenizer), seed=seed, **SIZES[count], spread=0.02).eval()
    return api.load(model, tokenizer)


@functools.cache
def trained(count: int, without: tuple[str, ...] = (), seed: int = 0) -> Artefact:
    """The original, or an oracle ``without`` the forget set."""
    start = untrained(count, seed)
    return api.train(
        start,
        split_of(count),
        without=without,
        seed=seed,
        quiet=True,
        epochs=EPOCHS[count],
        lr=RATES[count],
        batch_size=16,
        weight_decay=0.0,
    )


def oracle(count: int, seed: int = 0) -> Artefact:
    return trained(count, ("forget",), seed)


@functools.cache
def suppressed(count: int) -> Artefact:
    """The original, trained to give the forget set a low likelihood, and the retain set a high one."""
    first = trained(count)
    return api.forget(
        first,
        split_of(count),
        "gradient_difference",
        quiet=True,
        lr=2e-3,
        epochs=20,
        batch_size=16,
        schedule="constant",
        warmup=0.0,
    )


def seen(result: Artefact, count: int, chosen: Any = (MEMBER,)) -> Observations:
    requests = list(dict.fromkeys(r for audit in chosen for r in audit.requests(split_of(count))))
    return Store().observe(result, split_of(count), requests, quiet=True)


def swapped(made: Observations) -> Observations:
    """The same observations with members and others exchanged."""
    members, others = MEMBERSHIP_ROLES.values()
    names = {members: others, others: members}
    roles = {**made.split.roles, **{name: made.split[other] for name, other in names.items()}}
    values: dict[Any, Any] = {
        dataclasses.replace(request, role=names[request.role]): value  # type: ignore[type-var, attr-defined]
        for request, value in made.values.items()
    }
    return dataclasses.replace(made, split=dataclasses.replace(made.split, roles=roles), values=values)


def measured(result: Artefact, count: int) -> dict[str, Measurement]:
    found = api.audit(result, split_of(count), oracle=oracle(count), original=trained(count), quiet=True)
    return {m.name: m for m in found}


# 1


def checked_leakage(count: int) -> None:
    retrained, first = seen(oracle(count), count), seen(trained(count), count)
    assert LEAKAGE.measure(retrained, [retrained]).value == 0.0
    assert LEAKAGE.measure(first, [retrained]).value < -60


def test_the_oracle_leaks_nothing_and_the_original_much() -> None:
    checked_leakage(SMALL)


def test_random_weights_tell_nobody_apart() -> None:
    area = MEMBER.measure(seen(untrained(WHOLE), WHOLE), []).value
    print(f"AUC of random weights: {area:.3f}")
    assert abs(area - 0.5) < 0.1


def test_the_original_says_its_articles_by_heart() -> None:
    found = measured(trained(SMALL), SMALL)
    print({name: (round(m.value, 3), m.controls) for name, m in found.items()})
    assert (
        found["verbatim_memorisation"].value
        > 0.8
        > found["verbatim_memorisation"].controls["oracle"][0] + 0.2
    )
    assert (
        found["knowledge_memorisation"].value
        > 0.6
        > found["knowledge_memorisation"].controls["oracle"][0] + 0.2
    )
    assert found[UTILITY].value > 0.6 and found[UTILITY].controls["oracle"][0] > 0.5


# 2


def sides(count: int) -> tuple[float, float]:
    """(PrivLeak of the model that finds the forget set unlikely, the greatest that there can be beside this
    oracle)."""
    made, retrained = seen(suppressed(count), count), seen(oracle(count), count)
    value, most = (
        LEAKAGE.measure(made, [retrained]).value,
        float(privleak(np.array([0.0, MEMBER.measure(retrained, []).value]))),
    )
    print(f"PrivLeak of a model trained to find the forget set unlikely: {value:.1f} of at most {most:.1f}")
    return value, most


def test_who_finds_the_forget_set_unlikely_leaks_on_the_other_side() -> None:
    """Ten articles leave the oracle's area, and so the scale, to chance: here it is nine tenths of it, at
    the full size above 50."""
    value, most = sides(SMALL)
    assert 0 < 0.9 * most < value


def test_swapped_labels_flip_the_area() -> None:
    for result in (trained(SMALL), oracle(SMALL), untrained(SMALL)):
        made = seen(result, SMALL)
        assert MEMBER.measure(swapped(made), []).value == pytest.approx(
            1 - MEMBER.measure(made, []).value, abs=1e-12
        )


# 3


def test_a_holdout_of_another_kind_is_warned_of() -> None:
    """The oracle tells the forget set from texts of another kind, and the note of PrivLeak says so; of the
    same kind it says nothing."""
    made = split_of(SMALL)
    other = made.with_rows(
        privleak_holdout=[
            {"text": " ".join(str(row["text"]).split()[::-1])} for row in made["privleak_holdout"].rows
        ]
    )

    def look(result: Artefact, split: Split) -> Observations:
        return Store().observe(result, split, MEMBER.requests(split), quiet=True)

    shifted, first = look(oracle(SMALL), other), look(trained(SMALL), other)
    area = MEMBER.measure(shifted, []).value
    (found,) = Controls([LEAKAGE], None, [shifted]).card(first)
    assert area > 0.9 and f"tells privleak_forget from privleak_holdout (AUC {area:.2f})" in found.note
    plain = LEAKAGE.measure(look(trained(SMALL), made), [look(oracle(SMALL), made)])
    same = MEMBER.measure(look(oracle(SMALL), made), []).value
    assert ("differ in kind" in plain.note) == (not SAME_KIND[0] <= same <= SAME_KIND[1])


# 5


def test_the_interval_of_a_mean_of_overlaps() -> None:
    """Its middle inside, and half as wide with four times the items."""
    rng, words = np.random.default_rng(0), [f"w{k}" for k in range(12)]
    overlaps = np.array(
        [rouge_f1(" ".join(words), " ".join(words[: rng.integers(1, 13)])) for _ in range(800)]
    )
    widths = []
    for n in (200, 800):
        draws = mean_draws(overlaps[:n], [str(i) for i in range(n)])
        low, high = interval(draws)
        assert low < draws.mean() < high and low < overlaps[:n].mean() < high
        widths.append(high - low)
    assert 0.4 < widths[1] / widths[0] < 0.6


# The formula, on the published figures


@pytest.mark.parametrize(("retrained", "most"), [(0.4772, 109.6), (0.5393, 85.4)])
def test_the_published_range(retrained: float, most: float) -> None:
    """A = AUC of the holdout as positive class: 1 − ours. −100 at A = 0; the greatest value is 100 (1 −
    a)/a, News 109.6."""

    def leakage(area: float) -> float:
        return float(privleak(np.array([1 - area, 1 - retrained])))

    assert (
        leakage(0.0) == pytest.approx(-100, abs=1e-6)
        and leakage(retrained) == 0
        and leakage(1.0) == pytest.approx(most, abs=0.06)
    )


@pytest.mark.parametrize(
    ("a", "published"), [(0.000954, -99.8), (0.72583, 52.1), (0.92195, 93.2), (0.06681, -86.0)]
)
def test_published_leakages_come_of_areas_between_0_and_1(a: float, published: float) -> None:
    """Target, GA, GradDiff and NPO on News, turned into the areas that give them."""
    assert float(privleak(np.array([1 - a, 1 - 0.4772]))) == pytest.approx(published, abs=0.05)


# Pitfall: nothing said at all is no success


def test_a_broken_model_fails() -> None:
    first = trained(SMALL)
    wreck = api.forget(
        first,
        split_of(SMALL),
        "gradient_ascent",
        quiet=True,
        lr=1e-3,
        epochs=10,
        batch_size=16,
        schedule="constant",
        warmup=0.0,
    )
    found = measured(wreck, SMALL)
    assert found[UTILITY].value < 0.05 and found["knowledge_memorisation"].value < 0.05
    forgetting = [m for name, m in found.items() if name != UTILITY]
    assert len(forgetting) == 4 and all(
        m.verdict == "undetermined" and "the model collapsed" in m.note for m in forgetting
    )


# The full size


@pytest.mark.full
def test_two_hundred_articles() -> None:
    found = measured(trained(WHOLE), WHOLE)
    print({name: (round(m.value, 3), m.controls) for name, m in found.items()})
    assert found["verbatim_memorisation"].value > 0.8
    checked_leakage(WHOLE)
    assert sides(WHOLE)[0] > 50


@pytest.mark.full
def test_forget_set_and_holdout_are_of_one_kind() -> None:
    areas = [1 - MEMBER.measure(seen(oracle(WHOLE, seed), WHOLE), []).value for seed in range(5)]
    print("A of five oracles:", [round(area, 3) for area in areas])
    assert all(0.4 <= area <= 0.6 for area in areas)


@pytest.mark.full
@pytest.mark.parametrize("method", ["gradient_difference", "npo"])
def test_a_stream_of_four_requests(method: str, tmp_path: Any) -> None:
    """In one process and in four restarts: the same weights; every earlier request is measured after each."""
    from unremember.experiments import requests

    stream = requests.Stream(
        "articles sust",
        Articles(WHOLE).requests("sust"),
        True,
        trained(WHOLE),
        (oracle(WHOLE),),
        Settings(epochs=10, batch_size=16, lr=5e-4, schedule="constant", warmup=0.0),
    )
    whole = requests.run(stream, method, tmp_path / "one")
    for steps in (1, 2, 3, 4):
        parts = requests.run(
            dataclasses.replace(stream, requests=stream.requests[:steps]), method, tmp_path / "four"
        )
    print(requests.table([(method, whole)]))
    assert [cell["digest"] for cell in parts] == [cell["digest"] for cell in whole] and len(
        {cell["digest"] for cell in whole}
    ) == 4
    assert [len(cell["figures"]) for cell in whole] == [1, 2, 3, 4]
