"""Verdicts on made-up models whose knowledge is known, and the ways to fool an audit that do not work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from handmade import card, loss_records, simulated, token_records, with_values, world_split

from unremember.audits import controls
from unremember.audits.controls import Controls, default_audits, requests_of
from unremember.audits.forget_quality import ForgetQuality
from unremember.audits.measurement import Measurement
from unremember.audits.probability import Probability
from unremember.audits.truth_ratio import TruthRatio
from unremember.audits.verdicts import BLIND, MAKE_ORACLE, WIDE, verdict_from_controls
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations
from unremember.registry import audits as registry

ORIGINAL, ORACLES = simulated("original", 1.0), [simulated("oracle", 0.0), simulated("oracle 2", 0.01)]
CHOSEN = default_audits(world_split())
FORGETTING = {
    "exact_memorisation",
    "extraction_strength",
    "forget_quality",
    "membership_loss",
    "membership_mink",
    "membership_zlib",
    "probability",
    "rouge",
    "truth_ratio",
}


def read_card(
    observations: Observations,
    oracles: Sequence[Observations] = ORACLES,
    original: Observations | None = ORIGINAL,
    chosen: Any = CHOSEN,
) -> dict[str, Measurement]:
    return {m.name: m for m in card(chosen, observations, oracles, original)}


def forgetting(figures: dict[str, Measurement]) -> dict[str, Measurement]:
    return {name: m for name, m in figures.items() if name != "model_utility"}


def verdicts(figures: dict[str, Measurement]) -> set[str]:
    return {m.verdict for m in forgetting(figures).values()}


def measured(
    observations: Observations,
    oracles: Sequence[Observations] = ORACLES,
    original: Observations | None = ORIGINAL,
    audit: Any = None,
) -> Measurement:
    return card([audit or Probability()], observations, oracles, original)[0]


def test_every_registered_audit_applies_to_the_world() -> None:
    assert {audit.measure(ORIGINAL, ORACLES).name for audit in CHOSEN} == FORGETTING | {"model_utility"}


def test_one_that_is_retrained_is_indistinguishable_in_all() -> None:
    figures = read_card(simulated("a third oracle", 0.0))
    assert verdicts(figures) == {"indistinguishable"} and figures["model_utility"].verdict == "measured"
    placed = [m for name, m in forgetting(figures).items() if name != "forget_quality"]
    assert all(abs(m.position) < 0.06 and m.position_low <= m.position <= m.position_high for m in placed)


@pytest.mark.parametrize("knows", [0.3, 0.6])
def test_one_that_knows_more_is_under_forgotten_in_all(knows: float) -> None:
    figures = read_card(simulated("half", knows))
    assert verdicts(figures) == {"under-forgotten"}
    assert all(
        0 < m.position_low <= m.position <= m.position_high
        for name, m in forgetting(figures).items()
        if name != "forget_quality"
    )


def test_one_that_avoids_the_truth_is_over_suppressed_in_all() -> None:
    """Also by the two figures that fold both ends together: its truth ratio is the original's."""
    figures = read_card(simulated("avoids", -1.0))
    assert verdicts(figures) == {"over-suppressed"}
    assert figures["truth_ratio"].value == pytest.approx(
        figures["truth_ratio"].controls["original"], abs=0.01
    )
    assert figures["truth_ratio"].position < -0.5 and figures["forget_quality"].extra["saturated"]


def test_position_is_the_share_of_the_way_to_the_original() -> None:
    figures = measured(simulated("half", 0.5))
    oracle, original = np.mean(figures.controls["oracle"]), figures.controls["original"]
    assert figures.position == pytest.approx((figures.value - oracle) / (original - oracle))
    assert measured(simulated("twin of the original", 1.0)).position == pytest.approx(1, abs=0.02)
    assert figures.controls["oracle"] == [Probability().measure(o, []).value for o in ORACLES]


@pytest.mark.parametrize("knows", [0.0, 0.5, 1.0])
def test_without_an_oracle_all_is_undetermined_and_the_command_is_named(knows: float) -> None:
    figures = read_card(simulated("x", knows), oracles=[])
    assert verdicts(figures) == {"undetermined"}
    assert all(
        "unremember train --without forget" in m.note and "--oracle" in m.note and m.position is None
        for m in forgetting(figures).values()
    )
    assert figures["forget_quality"].value is None and figures["forget_quality"].reason, (
        "no p-value is made up"
    )


def test_without_the_original_all_is_undetermined_and_the_flag_is_named() -> None:
    figures = read_card(simulated("x", 0.0), original=None)
    assert verdicts(figures) == {"undetermined"}
    assert all("--original" in m.note and "unremember train" in m.note for m in forgetting(figures).values())


def test_the_weights_of_a_control_are_no_result() -> None:
    """Who hands in the original unchanged, or an oracle, is told so."""
    unchanged, oracle = read_card(ORIGINAL), read_card(ORACLES[1])
    assert verdicts(unchanged) == verdicts(oracle) == {"control"}
    assert all("original's weights, bit for bit" in m.note for m in unchanged.values())
    assert all("an oracle's weights, bit for bit" in m.note for m in oracle.values())


def test_a_twin_of_the_original_is_never_cleared() -> None:
    """The same behaviour under other weights: under-forgotten, all the way."""
    figures = read_card(dataclasses.replace(ORIGINAL, artefact="other bytes", weights="other bytes"))
    assert verdicts(figures) == {"under-forgotten"}
    assert all(
        m.position == pytest.approx(1) for name, m in forgetting(figures).items() if name != "forget_quality"
    )


@pytest.mark.parametrize(
    "observations",
    [
        simulated("silent", 0.0, mute=True),
        simulated("wreck", -10.0, useful=0, mute=True),
        simulated("half wreck", 0.3, useful=0),
    ],
)
def test_a_model_that_answers_nothing_is_never_cleared(observations: Observations) -> None:
    figures = read_card(observations)
    assert figures["model_utility"].value == 0 and verdicts(figures) == {"undetermined"}
    assert all("the model collapsed (utility 0.000)" in m.note for m in forgetting(figures).values())


def test_a_silent_model_whose_utility_nobody_measured_is_marked() -> None:
    figures = measured(simulated("silent", 0.0, mute=True))
    assert figures.verdict == "indistinguishable" and "utility was not measured" in figures.note
    assert "utility" not in measured(simulated("half", 0.5)).note


def utility(value: float | None, original: float | None, *oracles: float) -> Measurement:
    return Measurement(
        "model_utility",
        value,
        higher_is="better_utility",
        verdict="measured",
        controls={"oracle": list(oracles)} | ({"original": original} if original is not None else {}),
    )


@pytest.mark.parametrize(
    ("example", "vetoed"),
    [
        (utility(0.59, 0.6, 0.6), ""),
        (utility(0.31, 0.6, 0.6), ""),
        (utility(0.29, 0.6, 0.6), "the model collapsed (utility 0.290)"),
        (utility(0.0, None), "the model collapsed"),
        (utility(0.1, None), ""),
        (utility(0.6, 0.6, 0.6, 0.2), "the oracle collapsed (utility 0.200)"),
        (utility(0.6, 0.6, 0.0), "the oracle collapsed"),
        (utility(0.1, 0.6, 0.2), "the model collapsed (utility 0.100) and the oracle collapsed"),
    ],
)
def test_utility_below_half_of_the_originals_vetoes(example: Measurement, vetoed: str) -> None:
    cleared = Measurement("probability", 0.1, verdict="indistinguishable")
    open_ = Measurement("rouge", 0.1, verdict="undetermined", note=MAKE_ORACLE)
    figures = controls.veto([cleared, example, open_])
    assert (
        figures[0].verdict == ("undetermined" if vetoed else "indistinguishable")
        and vetoed in figures[0].note
    )
    assert figures[1].verdict == "measured" and figures[2].note == MAKE_ORACLE, (
        "what is missing is still said"
    )


def test_every_figure_of_what_was_to_be_kept_can_veto() -> None:
    """MUSE's broken model: nothing is said any more, neither of the forget set nor of the rest."""
    cleared = Measurement("verbatim_memorisation", 0.0, verdict="over-suppressed")
    fine = utility(0.6, 0.6, 0.6)
    gone = dataclasses.replace(utility(0.0, 0.5, 0.5), name="knowledge_memorisation knowmem_retain")
    assert controls.veto([cleared, fine])[0].verdict == "over-suppressed"
    vetoed = controls.veto([cleared, fine, gone])[0]
    assert (
        vetoed.verdict == "undetermined"
        and vetoed.note == "the model collapsed (utility 0.000): forgetting figures mean nothing"
    )
    lost = dataclasses.replace(gone, value=None)
    assert controls.veto([cleared, fine, lost])[0].verdict == "over-suppressed", (
        "what has no value vetoes nothing"
    )


def test_what_an_audit_says_of_itself_stays_beside_the_verdict() -> None:
    @dataclasses.dataclass(frozen=True)
    class Warns(Probability):
        def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
            return dataclasses.replace(super().measure(observations, oracles), note="mind this")

    assert measured(simulated("half", 0.5), audit=Warns()).note == "mind this"
    assert measured(simulated("half", 0.5), ORACLES[:1], audit=Warns()).note.endswith("; mind this")
    assert measured(ORIGINAL, audit=Warns()).note == f"{controls.THE_ORIGINAL}; mind this"


def test_an_oracle_that_never_learned_anything_is_no_control() -> None:
    figures = read_card(simulated("x", 0.0), oracles=[simulated("fresh weights", 0.0, useful=0, mute=True)])
    assert verdicts(figures) == {"undetermined"}
    assert all("the oracle collapsed (utility 0.000)" in m.note for m in forgetting(figures).values())


def test_swapped_roles_clear_nobody() -> None:
    """--original and --oracle exchanged: the original would else pass as retrained."""
    for knows in (1.0, 0.0, 0.5):
        figures = read_card(simulated("x", knows), oracles=[ORIGINAL], original=ORACLES[0])
        assert verdicts(figures) == {"uninformative"}
        assert all("swapped" in m.note and "not in the model" in m.note for m in forgetting(figures).values())


def test_controls_that_do_not_separate_are_uninformative_and_a_forget_set_never_learned_is_noted() -> None:
    figures = read_card(simulated("x", 0.0), original=simulated("never learned it", 0.0))
    assert verdicts(figures) == {"uninformative"}
    assert all(
        BLIND in m.note and "the forget set is not in the model" in m.note
        for m in forgetting(figures).values()
    )
    assert "not in the model" not in figures["model_utility"].note
    assert not any("not in the model" in m.note for m in read_card(simulated("x", 0.0)).values())


def test_the_oracle_that_knows_as_much_as_the_original_is_uninformative() -> None:
    assert verdicts(read_card(simulated("x", 0.0), oracles=[simulated("leaky", 1.0)])) <= {"uninformative"}


def test_without_an_oracle_the_holdout_tells_whether_the_forget_set_is_in_the_model() -> None:
    learned, never = (
        measured(simulated("x", 0.0), oracles=[], original=o) for o in (ORIGINAL, simulated("never", -0.2))
    )
    assert "not in the model" not in learned.note and "no better than the holdout" in never.note


def test_the_spread_of_the_oracles_is_the_noise_floor() -> None:
    """What lies between two oracles cannot be told from them; against one of them alone it can."""
    low, high, between = simulated("oracle low", 0.0), simulated("oracle high", 0.4), simulated("x", 0.3)
    assert measured(between, [low]).verdict == "under-forgotten"
    assert measured(between, [low, high]).verdict == "indistinguishable"
    assert measured(simulated("y", 0.8), [low, high]).verdict == "under-forgotten"


def test_one_oracle_is_said_and_a_twentieth_of_the_way_stands_in_for_its_floor() -> None:
    near, far = measured(simulated("near", 0.06), ORACLES[:1]), measured(simulated("far", 0.3), ORACLES[:1])
    assert 0 < near.position_low and near.position < 0.05 and near.verdict == "indistinguishable"
    assert far.position_low > 0.05 and far.verdict == "under-forgotten"
    assert all("one oracle" in m.note and "seed=1" in m.note for m in (near, far))
    assert measured(simulated("near", 0.06)).verdict == "under-forgotten", (
        "two oracles that differ by less know better"
    )
    assert "one oracle" not in measured(simulated("near", 0.06)).note


def test_the_same_oracle_given_twice_counts_once() -> None:
    figures = measured(simulated("near", 0.06), [ORACLES[0], ORACLES[0]])
    assert (
        "one oracle" in figures.note
        and figures.controls["oracle"] == measured(simulated("near", 0.06), ORACLES[:1]).controls["oracle"]
    )


def test_the_order_of_oracles_does_not_count() -> None:
    three = [*ORACLES, simulated("oracle 3", 0.005)]
    for knows in (0.0, 0.3):
        candidate = simulated("x", knows)
        first, last = read_card(candidate, three), read_card(candidate, three[::-1])
        assert all(first[n].verdict == last[n].verdict and first[n].value == last[n].value for n in first)
        assert all(
            first[n].position == pytest.approx(last[n].position) for n in FORGETTING - {"forget_quality"}
        )


def test_too_few_examples_clear_nobody() -> None:
    """Four subjects of very different kinds: an interval from the oracle to beyond half-way tells nothing."""
    common = {"n": 4, "groups": 4, "spread": 0.1}
    original, oracles = (
        simulated("original", 1.0, **common),
        [simulated(f"oracle {i}", 0.0, **common) for i in range(2)],
    )
    uneven = simulated("uneven", 0.0, **common)
    told = simulated("original", 1.0, **common)[TokenScores("forget")].logprobs.copy()
    told[:12] = uneven[TokenScores("forget")].logprobs[:12]
    mixed = with_values(uneven, {TokenScores("forget"): token_records(told.reshape(4, 4).tolist())})
    mixed = dataclasses.replace(mixed, artefact="mixed", weights="mixed")
    figures = measured(mixed, oracles, original)
    assert figures.position_low < 0.05 and figures.position_high > 0.5
    assert figures.verdict == "undetermined" and "half-way" in figures.note


def test_a_single_example_has_no_verdict() -> None:
    common = {"n": 1, "groups": 1}
    figures = measured(
        simulated("x", 0.0, **common),
        [simulated("oracle", 0.0, **common)],
        simulated("original", 1.0, **common),
    )
    assert (
        figures.value is not None and figures.verdict == "undetermined" and "single example" in figures.note
    )


def test_examples_hidden_behind_nan_do_not_clear() -> None:
    """No number on the half that is still known, oracle-like on the other half."""
    half = simulated("half hidden", 0.0)
    for column, text in (("answer", "answer"), ("paraphrased_answer", "paraphrased_answer")):
        values = half[TokenScores("forget", text)].loss.copy()
        values[:100] = np.nan
        example = loss_records(values) if column != "answer" else token_records([[-v] * 4 for v in values])
        half = with_values(half, {TokenScores("forget", column): example})
    figures = read_card(half)
    for name in (
        "probability",
        "truth_ratio",
        "membership_loss",
        "membership_mink",
        "membership_zlib",
        "forget_quality",
    ):
        assert figures[name].verdict == "undetermined", name
    assert (
        figures["probability"].skipped == {"no value": 100}
        and "without a value" in figures["probability"].note
    )


def test_rows_that_no_model_can_be_scored_on_are_skipped_in_all_alike() -> None:
    def blinded(observations: Observations) -> Observations:
        values = observations[TokenScores("forget")].loss.copy()
        values[:20] = np.nan
        return with_values(observations, {TokenScores("forget"): token_records([[-v] * 4 for v in values])})

    figures = measured(blinded(simulated("half", 0.5)), [blinded(o) for o in ORACLES], blinded(ORIGINAL))
    assert (
        figures.verdict == "under-forgotten"
        and figures.n == 180
        and figures.position == pytest.approx(measured(simulated("half", 0.5)).position, abs=0.03)
    )


def test_a_model_of_nans_is_undetermined_with_its_reason() -> None:
    nan = simulated("nan", 0.0)
    gone = {
        request: loss_records(np.full(len(records), np.nan), rows=records.rows)
        for request, records in nan.values.items()
        if isinstance(request, TokenScores)
    }
    figures = read_card(with_values(nan, gone))
    assert figures["model_utility"].value == 0.0 and figures["model_utility"].skipped
    assert (
        verdicts(figures) == {"undetermined"}
        and figures["probability"].value is None
        and figures["probability"].note
    )


def test_a_gap_is_paired_over_examples() -> None:
    """Subjects differ far more than the model does from the oracle: unpaired intervals would overlap."""
    wide = {"spread": 0.9, "own": 0.02}
    original, oracles = (
        simulated("original", 1.0, **wide),
        [simulated(f"oracle {i}", 0.0, **wide) for i in range(2)],
    )
    figures = measured(simulated("little", 0.12, **wide), oracles, original)
    oracle = Probability().measure(oracles[0], [])
    assert figures.low < oracle.high and oracle.low < figures.high, "the intervals overlap"
    assert figures.verdict == "under-forgotten" and figures.position_low > 0


@pytest.mark.parametrize("seed", range(6))
def test_a_further_retraining_is_cleared_by_the_means(seed: int) -> None:
    figures = read_card(simulated(f"seed {seed}", 0.002 * seed))
    assert {
        figures[name].verdict for name in ("probability", "rouge", "exact_memorisation", "truth_ratio")
    } == {"indistinguishable"}
    assert abs(figures["probability"].position) < 0.02


def test_direction_follows_what_higher_means() -> None:
    """A figure that falls with knowledge: the same verdicts, mirrored."""

    @dataclasses.dataclass(frozen=True)
    class Ignorance:
        def requests(self, split: Any) -> list[Any]:
            return []

        def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
            inner = Probability().measure(observations, oracles)
            return dataclasses.replace(
                inner, value=1 - inner.value, draws=1 - inner.draws, higher_is="less_knowledge"
            )

    for knows, verdict in ((0.5, "under-forgotten"), (0.0, "indistinguishable"), (-1.0, "over-suppressed")):
        mirrored, plain = measured(simulated("x", knows), audit=Ignorance()), measured(simulated("x", knows))
        assert mirrored.verdict == plain.verdict == verdict and mirrored.position == pytest.approx(
            plain.position
        )
    assert measured(simulated("x", 0.0), [ORIGINAL], ORACLES[0], Ignorance()).verdict == "uninformative"


def test_a_figure_without_draws_has_no_verdict() -> None:
    class Bare:
        def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
            return Measurement(
                "bare",
                {"original": 1.0}.get(observations.artefact, 0.0),
                higher_is="more_knowledge",
                artefact=observations.artefact,
            )

    figures = measured(simulated("x", 0.0), audit=Bare())
    assert figures.verdict == "undetermined" and "no bootstrap draws" in figures.note


def test_the_truth_ratio_of_vanishing_probabilities_tells_the_side() -> None:
    """Losses near 60: with 1e-10 added, every ratio is 0, which would read as knowing all."""
    base = simulated("x", 0.0)
    n = len(base.split["forget"])
    wrong = loss_records(np.full(2 * n, 60.0), rows=np.repeat(np.arange(n), 2).tolist())
    right = loss_records(np.full(n, 66.0))
    gone = {
        TokenScores("forget", "paraphrased_answer"): right,
        TokenScores("forget", "perturbed_answers"): wrong,
    }
    figures = measured(with_values(base, gone), audit=TruthRatio())
    assert figures.value < 1e-6 and figures.verdict == "over-suppressed"


def test_a_benchmark_may_say_what_is_measured_of_it() -> None:
    split = dataclasses.replace(world_split(), audits=("rouge", {"name": "membership_mink", "k": 0.2}))
    assert default_audits(split) == [
        registry.make("rouge"),
        registry.make({"name": "membership_mink", "k": 0.2}),
    ]
    assert split.digest == world_split().digest, "the data are the same whatever is measured of them"


@dataclasses.dataclass
class CountingProbability:
    """The probability, and whose it was measured."""

    measured: list[str] = dataclasses.field(default_factory=list)

    def requests(self, split: Any) -> list[Any]:
        return list(Probability().requests(split))

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        self.measured.append(observations.artefact)
        return Probability().measure(observations, oracles)


def test_the_controls_are_measured_once_however_many_models_are_read_against_them() -> None:
    audit = CountingProbability()
    beside = Controls([audit], ORIGINAL, [*ORACLES, ORACLES[0]])
    models = [simulated(f"model {i}", 0.2 * i) for i in range(4)]
    cards = [beside.card(observations)[0] for observations in models]
    assert sorted(audit.measured) == sorted(
        [ORIGINAL.artefact, *(oracle.artefact for oracle in ORACLES), *(m.artefact for m in models)]
    )
    for observations, figure in zip(models, cards):
        fresh = measured(observations)
        assert figure.row() == fresh.row() and np.array_equal(figure.draws, fresh.draws)


def test_a_control_is_known_by_its_weights_and_a_figure_by_its_artefact() -> None:
    """The same weights under another template are the same control.

    The figure names the artefact that was measured.
    """
    retemplated = dataclasses.replace(ORIGINAL, artefact="the same weights, another template")
    figure = measured(retemplated)
    assert figure.verdict == "control" and figure.artefact == "the same weights, another template"
    assert figure.note == controls.THE_ORIGINAL
    assert (
        Controls([Probability()], ORIGINAL, ORACLES).card(retemplated, recognise=False)[0].verdict
        == "under-forgotten"
    )


def test_each_request_is_made_once() -> None:
    requests = requests_of(CHOSEN, world_split())
    assert len(requests) == len(set(requests)) and TokenScores("forget") in requests


# --- the rule itself, on draws that are written down ---


def drawn(name: str, mean: float, low: float, high: float, **more: Any) -> Measurement:
    """A figure whose draws are spread evenly from ``low`` to ``high``."""
    return Measurement(name, mean, draws=np.linspace(low, high, 1001), **more)


STEADY = {"original": (1.0, 0.99, 1.01), "oracles": [(-0.01, -0.01, -0.01), (0.01, 0.01, 0.01)]}
AROUND = {
    "both sides, narrow": ((0.0, -0.4, 0.4), "indistinguishable"),
    "far below the oracle, still at it": ((-0.3, -0.9, 0.1), "undetermined"),
    "half-way to the original, still at the oracle": ((0.3, -0.1, 0.9), "undetermined"),
    "below": ((-0.3, -0.4, -0.2), "over-suppressed"),
    "above": ((0.3, 0.2, 0.4), "under-forgotten"),
}


@pytest.mark.parametrize("place", AROUND)
def test_an_interval_that_is_wide_on_either_side_clears_nobody(place: str) -> None:
    figure, verdict = AROUND[place]
    original, oracles = drawn("p", *STEADY["original"]), [drawn("p", *ends) for ends in STEADY["oracles"]]
    placed = verdict_from_controls(drawn("p", *figure), oracles, original)
    assert placed.verdict == verdict and (placed.note == WIDE) == (verdict == "undetermined")


@pytest.mark.parametrize("place", AROUND)
def test_a_p_value_clears_only_where_the_axis_is_narrow(place: str) -> None:
    """All pass the test; where the axis leaves open how much is known, that is no clearance."""
    figure, verdict = AROUND[place]

    def quality(p: float, ends: tuple[float, float, float]) -> Measurement:
        return Measurement("forget_quality", p, axis=drawn("axis", *ends), extra={"saturated": False})

    oracles = [quality(0.9, ends) for ends in STEADY["oracles"]]
    read = verdict_from_controls(quality(0.8, figure), oracles, quality(1e-9, STEADY["original"]))
    assert read.verdict == ("undetermined" if verdict == "undetermined" else "indistinguishable")


def test_an_oracle_is_tested_against_the_others_alone() -> None:
    """Of three, its p is the lower one against the other two: itself would count as a third, at p = 1."""
    three = [simulated(f"oracle {i}", i / 20) for i in range(3)]
    alone = {
        (i, j): float(ForgetQuality().measure(three[i], [three[j]]).value or 0.0)
        for i in range(3)
        for j in range(3)
        if i != j
    }
    assert len(set(alone.values())) > 1 and max(alone.values()) < 1
    for i in range(3):
        others = [alone[i, j] for j in range(3) if j != i]
        assert ForgetQuality().measure(three[i], three).value == min(others)
