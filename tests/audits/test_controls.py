"""Verdicts on made-up models whose knowledge is known, and the ways to fool an audit that do not work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from handmade import loss_records, simulated, token_records, world_split

from unremember.audits import controls
from unremember.audits.controls import Controls, default_audits
from unremember.audits.measurement import Measurement
from unremember.audits.probability import Probability
from unremember.audits.truth_ratio import TruthRatio
from unremember.observe.records import Observations, Want
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


def read(
    seen: Observations,
    oracles: Sequence[Observations] = ORACLES,
    original: Observations | None = ORIGINAL,
    chosen: Any = CHOSEN,
) -> dict[str, Measurement]:
    return {m.name: m for m in card(chosen, seen, oracles, original)}


def forgetting(found: dict[str, Measurement]) -> dict[str, Measurement]:
    return {name: m for name, m in found.items() if name != "model_utility"}


def verdicts(found: dict[str, Measurement]) -> set[str]:
    return {m.verdict for m in forgetting(found).values()}


def one(
    seen: Observations,
    oracles: Sequence[Observations] = ORACLES,
    original: Observations | None = ORIGINAL,
    audit: Any = None,
) -> Measurement:
    return card([audit or Probability()], seen, oracles, original)[0]


def test_every_registered_audit_applies_to_the_world() -> None:
    assert {audit.measure(ORIGINAL, ORACLES).name for audit in CHOSEN} == FORGETTING | {"model_utility"}


def test_one_that_is_retrained_is_indistinguishable_in_all() -> None:
    found = read(simulated("a third oracle", 0.0))
    assert verdicts(found) == {"indistinguishable"} and found["model_utility"].verdict == "measured"
    placed = [m for name, m in forgetting(found).items() if name != "forget_quality"]
    assert all(abs(m.position) < 0.06 and m.position_low <= m.position <= m.position_high for m in placed)


@pytest.mark.parametrize("knows", [0.3, 0.6])
def test_one_that_knows_more_is_under_forgotten_in_all(knows: float) -> None:
    found = read(simulated("half", knows))
    assert verdicts(found) == {"under-forgotten"}
    assert all(
        0 < m.position_low <= m.position <= m.position_high
        for name, m in forgetting(found).items()
        if name != "forget_quality"
    )


def test_one_that_avoids_the_truth_is_over_suppressed_in_all() -> None:
    """Also by the two figures that fold both ends together: its truth ratio is the original's."""
    found = read(simulated("avoids", -1.0))
    assert verdicts(found) == {"over-suppressed"}
    assert found["truth_ratio"].value == pytest.approx(found["truth_ratio"].controls["original"], abs=0.01)
    assert found["truth_ratio"].position < -0.5 and found["forget_quality"].extra["saturated"]


def test_position_is_the_share_of_the_way_to_the_original() -> None:
    found = one(simulated("half", 0.5))
    oracle, original = np.mean(found.controls["oracle"]), found.controls["original"]
    assert found.position == pytest.approx((found.value - oracle) / (original - oracle))
    assert one(simulated("twin of the original", 1.0)).position == pytest.approx(1, abs=0.02)
    assert found.controls["oracle"] == [Probability().measure(o, []).value for o in ORACLES]


@pytest.mark.parametrize("knows", [0.0, 0.5, 1.0])
def test_without_an_oracle_all_is_undetermined_and_the_command_is_named(knows: float) -> None:
    found = read(simulated("x", knows), oracles=[])
    assert verdicts(found) == {"undetermined"}
    assert all(
        "unremember train --without forget" in m.note and "--oracle" in m.note and m.position is None
        for m in forgetting(found).values()
    )
    assert found["forget_quality"].value is None and found["forget_quality"].reason, "no p-value is made up"


def test_without_the_original_all_is_undetermined_and_the_flag_is_named() -> None:
    found = read(simulated("x", 0.0), original=None)
    assert verdicts(found) == {"undetermined"}
    assert all("--original" in m.note and "unremember train" in m.note for m in forgetting(found).values())


def test_the_weights_of_a_control_are_no_result() -> None:
    """Who hands in the original unchanged, or an oracle, is told so."""
    unchanged, oracle = read(ORIGINAL), read(ORACLES[1])
    assert verdicts(unchanged) == verdicts(oracle) == {"control"}
    assert all("original's weights, bit for bit" in m.note for m in unchanged.values())
    assert all("an oracle's weights, bit for bit" in m.note for m in oracle.values())


def test_a_twin_of_the_original_is_never_cleared() -> None:
    """The same behaviour under other weights: under-forgotten, all the way."""
    found = read(dataclasses.replace(ORIGINAL, artefact="other bytes"))
    assert verdicts(found) == {"under-forgotten"}
    assert all(
        m.position == pytest.approx(1) for name, m in forgetting(found).items() if name != "forget_quality"
    )


@pytest.mark.parametrize(
    "seen",
    [
        simulated("silent", 0.0, mute=True),
        simulated("wreck", -10.0, useful=0, mute=True),
        simulated("half wreck", 0.3, useful=0),
    ],
)
def test_a_model_that_answers_nothing_is_never_cleared(seen: Observations) -> None:
    found = read(seen)
    assert found["model_utility"].value == 0 and verdicts(found) == {"undetermined"}
    assert all("the model collapsed (utility 0.000)" in m.note for m in forgetting(found).values())


def test_a_silent_model_whose_utility_nobody_measured_is_marked() -> None:
    found = one(simulated("silent", 0.0, mute=True))
    assert found.verdict == "indistinguishable" and "utility was not measured" in found.note
    assert "utility" not in one(simulated("half", 0.5)).note


def utility(value: float | None, original: float | None, *oracles: float) -> Measurement:
    return Measurement(
        "model_utility",
        value,
        higher_is="better_utility",
        verdict="measured",
        controls={"oracle": list(oracles)} | ({"original": original} if original is not None else {}),
    )


@pytest.mark.parametrize(
    ("made", "vetoed"),
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
def test_utility_below_half_of_the_originals_vetoes(made: Measurement, vetoed: str) -> None:
    cleared = Measurement("probability", 0.1, verdict="indistinguishable")
    open_ = Measurement("rouge", 0.1, verdict="undetermined", note=controls.MAKE_ORACLE)
    found = controls.veto([cleared, made, open_])
    assert found[0].verdict == ("undetermined" if vetoed else "indistinguishable") and vetoed in found[0].note
    assert found[1].verdict == "measured" and found[2].note == controls.MAKE_ORACLE, (
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
        and vetoed.note == "the model collapsed (utility 0.000): a forgetting figure says nothing"
    )
    lost = dataclasses.replace(gone, value=None)
    assert controls.veto([cleared, fine, lost])[0].verdict == "over-suppressed", (
        "what has no value vetoes nothing"
    )


def test_what_an_audit_says_of_itself_stays_beside_the_verdict() -> None:
    @dataclasses.dataclass(frozen=True)
    class Warns(Probability):
        def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
            return dataclasses.replace(super().measure(seen, oracles), note="mind this")

    assert one(simulated("half", 0.5), audit=Warns()).note == "mind this"
    assert one(simulated("half", 0.5), ORACLES[:1], audit=Warns()).note.endswith("; mind this")
    assert one(ORIGINAL, audit=Warns()).note == f"{controls.THE_ORIGINAL}; mind this"


def test_an_oracle_that_never_learned_anything_is_no_control() -> None:
    found = read(simulated("x", 0.0), oracles=[simulated("fresh weights", 0.0, useful=0, mute=True)])
    assert verdicts(found) == {"undetermined"}
    assert all("the oracle collapsed (utility 0.000)" in m.note for m in forgetting(found).values())


def test_swapped_roles_clear_nobody() -> None:
    """--original and --oracle exchanged: the original would else pass as retrained."""
    for knows in (1.0, 0.0, 0.5):
        found = read(simulated("x", knows), oracles=[ORIGINAL], original=ORACLES[0])
        assert verdicts(found) == {"uninformative"}
        assert all("swapped" in m.note and "not in the model" in m.note for m in forgetting(found).values())


def test_controls_that_do_not_separate_are_uninformative_and_a_forget_set_that_was_never_learned_is_said() -> (
    None
):
    found = read(simulated("x", 0.0), original=simulated("never learned it", 0.0))
    assert verdicts(found) == {"uninformative"}
    assert all(
        controls.BLIND in m.note and "the forget set is not in the model" in m.note
        for m in forgetting(found).values()
    )
    assert "not in the model" not in found["model_utility"].note
    assert not any("not in the model" in m.note for m in read(simulated("x", 0.0)).values())


def test_the_oracle_that_knows_as_much_as_the_original_is_uninformative() -> None:
    assert verdicts(read(simulated("x", 0.0), oracles=[simulated("leaky", 1.0)])) <= {"uninformative"}


def test_without_an_oracle_the_holdout_tells_whether_the_forget_set_is_in_the_model() -> None:
    learned, never = (one(simulated("x", 0.0), oracles=[], original=o) for o in (ORIGINAL, simulated("never", -0.2)))
    assert "not in the model" not in learned.note and "no better than the holdout" in never.note


def test_the_spread_of_the_oracles_is_the_noise_floor() -> None:
    """What lies between two oracles cannot be told from them; against one of them alone it can."""
    low, high, between = simulated("oracle low", 0.0), simulated("oracle high", 0.4), simulated("x", 0.3)
    assert one(between, [low]).verdict == "under-forgotten"
    assert one(between, [low, high]).verdict == "indistinguishable"
    assert one(simulated("y", 0.8), [low, high]).verdict == "under-forgotten"


def test_one_oracle_is_said_and_a_twentieth_of_the_way_stands_in_for_its_floor() -> None:
    near, far = one(simulated("near", 0.06), ORACLES[:1]), one(simulated("far", 0.3), ORACLES[:1])
    assert 0 < near.position_low and near.position < 0.05 and near.verdict == "indistinguishable"
    assert far.position_low > 0.05 and far.verdict == "under-forgotten"
    assert all("one oracle" in m.note and "seed=1" in m.note for m in (near, far))
    assert one(simulated("near", 0.06)).verdict == "under-forgotten", (
        "two oracles that differ by less know better"
    )
    assert "one oracle" not in one(simulated("near", 0.06)).note


def test_the_same_oracle_given_twice_counts_once() -> None:
    found = one(simulated("near", 0.06), [ORACLES[0], ORACLES[0]])
    assert (
        "one oracle" in found.note
        and found.controls["oracle"] == one(simulated("near", 0.06), ORACLES[:1]).controls["oracle"]
    )


def test_the_order_of_oracles_does_not_count() -> None:
    three = [*ORACLES, simulated("oracle 3", 0.005)]
    for knows in (0.0, 0.3):
        mine = simulated("x", knows)
        first, last = read(mine, three), read(mine, three[::-1])
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
    told = simulated("original", 1.0, **common).scores("forget").logprobs.copy()
    told[:12] = uneven[TokenScores("forget")].logprobs[:12]
    mixed = dataclasses.replace(
        uneven,
        scored={**uneven.scored, TokenScores("forget"): token_records(told.reshape(4, 4).tolist())},
        artefact="mixed",
    )
    found = one(mixed, oracles, original)
    assert found.position_low < 0.05 and found.position_high > 0.5
    assert found.verdict == "undetermined" and "half-way" in found.note


def test_a_single_example_has_no_verdict() -> None:
    common = {"n": 1, "groups": 1}
    found = one(simulated("x", 0.0, **common), [simulated("oracle", 0.0, **common)], simulated("original", 1.0, **common))
    assert found.value is not None and found.verdict == "undetermined" and "single example" in found.note


def test_examples_hidden_behind_nan_do_not_clear() -> None:
    """No number on the half that is still known, oracle-like on the other half."""
    half = simulated("half hidden", 0.0)
    for column, text in (("answer", "answer"), ("paraphrased_answer", "paraphrased_answer")):
        values = half.scores("forget", text).loss.copy()
        values[:100] = np.nan
        made = loss_records(values) if column != "answer" else token_records([[-v] * 4 for v in values])
        half = dataclasses.replace(half, scored={**half.scored, TokenScores("forget", column): made})
    found = read(half)
    for name in (
        "probability",
        "truth_ratio",
        "membership_loss",
        "membership_mink",
        "membership_zlib",
        "forget_quality",
    ):
        assert found[name].verdict == "undetermined", name
    assert (
        found["probability"].skipped == {"no value": 100} and "without a value" in found["probability"].note
    )


def test_rows_that_no_model_can_be_scored_on_are_skipped_in_all_alike() -> None:
    def blinded(seen: Observations) -> Observations:
        values = seen[TokenScores("forget")].loss.copy()
        values[:20] = np.nan
        return dataclasses.replace(
            seen, scored={**seen.scored, TokenScores("forget"): token_records([[-v] * 4 for v in values])}
        )

    found = one(blinded(simulated("half", 0.5)), [blinded(o) for o in ORACLES], blinded(ORIGINAL))
    assert (
        found.verdict == "under-forgotten"
        and found.n == 180
        and found.position == pytest.approx(one(simulated("half", 0.5)).position, abs=0.03)
    )


def test_a_model_of_nans_is_undetermined_with_its_reason() -> None:
    nan = simulated("nan", 0.0)
    gone = {want: loss_records(np.full(len(s), np.nan), rows=s.rows) for want, s in nan.scored.items()}
    found = read(dataclasses.replace(nan, scored=gone))
    assert found["model_utility"].value == 0.0 and found["model_utility"].skipped
    assert (
        verdicts(found) == {"undetermined"}
        and found["probability"].value is None
        and found["probability"].note
    )


def test_a_gap_is_paired_over_examples() -> None:
    """Subjects differ far more than the model does from the oracle: unpaired intervals would overlap."""
    wide = {"spread": 0.9, "own": 0.02}
    original, oracles = simulated("original", 1.0, **wide), [simulated(f"oracle {i}", 0.0, **wide) for i in range(2)]
    found = one(simulated("little", 0.12, **wide), oracles, original)
    oracle = Probability().measure(oracles[0], [])
    assert found.low < oracle.high and oracle.low < found.high, "the intervals overlap"
    assert found.verdict == "under-forgotten" and found.position_low > 0


@pytest.mark.parametrize("seed", range(6))
def test_a_further_retraining_is_cleared_by_the_means(seed: int) -> None:
    found = read(simulated(f"seed {seed}", 0.002 * seed))
    assert {
        found[name].verdict for name in ("probability", "rouge", "exact_memorisation", "truth_ratio")
    } == {"indistinguishable"}
    assert abs(found["probability"].position) < 0.02


def test_direction_follows_what_higher_means() -> None:
    """A figure that falls with knowledge: the same verdicts, mirrored."""

    @dataclasses.dataclass(frozen=True)
    class Ignorance:
        def wants(self, split: Any) -> list[Want]:
            return []

        def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
            inner = Probability().measure(seen, oracles)
            return dataclasses.replace(
                inner, value=1 - inner.value, draws=1 - inner.draws, higher_is="less_knowledge"
            )

    for knows, verdict in ((0.5, "under-forgotten"), (0.0, "indistinguishable"), (-1.0, "over-suppressed")):
        mirrored, plain = one(simulated("x", knows), audit=Ignorance()), one(simulated("x", knows))
        assert mirrored.verdict == plain.verdict == verdict and mirrored.position == pytest.approx(
            plain.position
        )
    assert one(simulated("x", 0.0), [ORIGINAL], ORACLES[0], Ignorance()).verdict == "uninformative"


def test_a_figure_without_draws_has_no_verdict() -> None:
    class Bare:
        def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
            return Measurement(
                "bare",
                {"original": 1.0}.get(seen.artefact, 0.0),
                higher_is="more_knowledge",
                artefact=seen.artefact,
            )

    found = one(simulated("x", 0.0), audit=Bare())
    assert found.verdict == "undetermined" and "no bootstrap draws" in found.note


def test_the_truth_ratio_of_vanishing_probabilities_tells_the_side() -> None:
    """Losses near 60: with 1e-10 added, every ratio is 0, which would read as knowing all."""
    base = simulated("x", 0.0)
    n = len(base.split["forget"])
    wrong = loss_records(np.full(2 * n, 60.0), rows=np.repeat(np.arange(n), 2).tolist())
    right = loss_records(np.full(n, 66.0))
    gone = {
        **base.scored,
        TokenScores("forget", "paraphrased_answer"): right,
        TokenScores("forget", "perturbed_answers"): wrong,
    }
    found = one(dataclasses.replace(base, scored=gone), audit=TruthRatio())
    assert found.value < 1e-6 and found.verdict == "over-suppressed"


def test_a_benchmark_may_say_what_is_measured_of_it() -> None:
    split = dataclasses.replace(world_split(), audits=("rouge", {"name": "membership_mink", "k": 0.2}))
    assert default_audits(split) == [
        registry.make("rouge"),
        registry.make({"name": "membership_mink", "k": 0.2}),
    ]
    assert split.digest == world_split().digest, "the data are the same whatever is measured of them"
