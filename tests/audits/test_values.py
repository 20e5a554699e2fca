"""Every figure against its hand-computed example, and against an independent implementation."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from handmade import ANSWER, loss_records, observations_of, question_rows, token_records, world_split
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from unremember.audits.bootstrap import auc
from unremember.audits.forget_quality import ForgetQuality, ks
from unremember.audits.membership import (
    MembershipLoss,
    MembershipMinK,
    MembershipZlib,
    min_k,
    true_positives,
    zlib_size,
)
from unremember.audits.memorisation import ExactMemorisation, ExtractionStrength, strength
from unremember.audits.model_utility import ModelUtility, harmonic
from unremember.audits.probability import Probability
from unremember.audits.rouge import Rouge, recall
from unremember.audits.truth_ratio import TruthRatio, closer_to_1, true_better, truth_ratio
from unremember.data.split import Split, make_split
from unremember.errors import DataError

LOGITS = torch.tensor([[0, 1, 0, -1], [1, 0, 2, 0], [0.5, -0.5, 0, 1.5]], dtype=torch.float64)
LOGPROBS = LOGITS.log_softmax(-1)[torch.arange(3), torch.tensor([1, 2, 3])].tolist()


def one_role(**columns: Any) -> Split:
    """A forget set of one row with these columns."""
    return make_split({"forget": [{"question": "?", "answer": ANSWER, **columns}]})


def test_probability_is_the_geometric_mean_per_token() -> None:
    """Spec A1, to the digits of float32 records."""
    assert LOGPROBS == pytest.approx([-0.626523375, -0.493811709, -0.546006390], abs=1e-9)
    record = token_records([LOGPROBS])
    assert record.loss[0] == pytest.approx(0.555447158016, abs=5e-8)
    result = Probability().measure(observations_of(one_role(), {("forget", "answer"): record}), [])
    assert result.value == pytest.approx(0.573815617567, abs=5e-8)
    assert result.value != pytest.approx(0.188937033777, abs=0.1), "not the sequence's"
    assert min_k(token_records([LOGPROBS], ends=True), 1.0)[0] == pytest.approx(0.560167542054, abs=5e-8), (
        "without the last token"
    )


def test_probability_among_options() -> None:
    """Spec A2: .4 beside .1, .2, .1; a row without options has no value, not probability 1."""
    rows = [
        {"question": "?", "answer": "a", "perturbed_answers": ["b", "c", "d"]},
        {"question": "!", "answer": "a", "perturbed_answers": []},
    ]
    right, wrong = (
        loss_records([-math.log(0.4)] * 2),
        loss_records([-math.log(p) for p in (0.1, 0.2, 0.1)], rows=[0, 0, 0]),
    )
    split = make_split({"forget": rows})
    result = Probability().measure(
        observations_of(split, {("forget", "answer"): right, ("forget", "perturbed_answers"): wrong}), []
    )
    assert (
        result.value == pytest.approx(0.5, abs=1e-7) and result.n == 1 and result.skipped == {"no value": 1}
    )
    assert np.isnan(result.per_example[1])


@pytest.mark.parametrize(
    ("mean", "expected"), [("geometric", 0.223130160148), ("arithmetic", 0.251607362204)]
)
def test_truth_ratio(mean: str, expected: float) -> None:
    """Spec A3: losses 1 against 2 and 3."""
    result = truth_ratio(np.array([1.0]), np.array([2.0, 3.0]), np.array([0, 0]), mean)
    assert result[0] == pytest.approx(expected, abs=1e-10)
    split = one_role(paraphrased_answer="p", perturbed_answers=["x", "y"])
    record = observations_of(
        split,
        {
            ("forget", "paraphrased_answer"): loss_records([1]),
            ("forget", "perturbed_answers"): loss_records([2, 3], rows=[0, 0]),
        },
    )
    observations = TruthRatio(mean=mean).measure(record, [])
    assert (
        observations.value == pytest.approx(expected, abs=1e-9) and observations.higher_is == "less_knowledge"
    )
    assert observations.axis.value == pytest.approx(0.817574476194, abs=1e-10), (
        "1/(1 + R), the figure that is placed"
    )


def test_truth_ratio_aggregates() -> None:
    ratios = np.array([0.5, 2, 1])
    assert closer_to_1(ratios).mean() == pytest.approx(0.666666666667, abs=1e-9)
    assert true_better(ratios).mean() == pytest.approx(0.166666666667, abs=1e-9)


def test_the_right_answer_is_the_answer_itself_where_there_is_no_paraphrase() -> None:
    split = one_role(perturbed_answers=["x", "y"])
    record = observations_of(
        split,
        {
            ("forget", "answer"): loss_records([1]),
            ("forget", "perturbed_answers"): loss_records([2, 3], rows=[0, 0]),
        },
    )
    assert TruthRatio().measure(record, []).value == pytest.approx(0.223130160148, abs=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "distance", "p"),
    [
        ([1, 2, 3, 4], [3.5, 4.5, 5.5, 6.5], 0.75, 0.228571428571),
        ([0.2, 0.4, 0.6, 0.8], [0.1, 0.3, 0.5, 0.9], 0.25, 1.0),
        ([1, 2, 3], [1, 2, 3], 0.0, 1.0),
    ],
)
def test_ks_by_hand(x: list[float], y: list[float], distance: float, p: float) -> None:
    """Spec A4; inversion of the ratios changes nothing."""
    for a, b in ((x, y), (1 / np.array(x), 1 / np.array(y)), (np.log(x), np.log(y))):
        result, extra = ks(np.array(a), np.array(b))
        assert result == pytest.approx(p, abs=1e-11) and extra["statistic"] == pytest.approx(distance)
        assert extra["log10_p"] == pytest.approx(math.log10(p), abs=1e-9) and not extra["saturated"]


def exact_log10(n: int, k: int) -> float:
    """log10 of the exact two-sided p at distance k/n of two samples of n, in whole numbers."""
    ways = sum((-1) ** (j - 1) * math.comb(2 * n, n - j * k) for j in range(1, n // k + 1))
    return math.log10(2 * ways) - math.log10(math.comb(2 * n, n))


@pytest.mark.parametrize(
    ("n", "floor"),
    [(20, 1.4509e-11), (40, 1.8603e-23), (200, 1.9426e-119), (300, 1.4803e-179), (400, 1.0636e-239)],
)
def test_the_floor_of_disjoint_samples(n: int, floor: float) -> None:
    p, extra = ks(np.arange(n), np.arange(n) + n)
    assert p == pytest.approx(floor, rel=5e-5) and p == pytest.approx(
        ks_2samp(np.arange(n), np.arange(n) + n, method="exact").pvalue
    )
    assert extra["saturated"] and extra["log10_p"] == pytest.approx(exact_log10(n, n), abs=1e-9)


@pytest.mark.parametrize(("n", "k"), [(600, 600), (600, 597), (1000, 950), (1000, 1000)])
def test_log10_p_is_exact_where_p_underflows(n: int, k: int) -> None:
    p, extra = ks(np.arange(n), np.arange(n) + k - 0.5)
    assert p == 0 and extra["log10_p"] == pytest.approx(exact_log10(n, k), abs=1e-8)
    assert extra["saturated"] == (n == k)


def test_log10_p_of_unequal_samples_that_underflow() -> None:
    n, m = 700, 900
    assert ks(np.arange(n), np.arange(m) + n)[1]["log10_p"] == pytest.approx(
        math.log10(2) - math.log10(math.comb(n + m, n)), abs=1e-8
    )
    _, extra = ks(np.arange(3000.0), np.arange(2500) + 2700.5)
    assert -1600 < extra["log10_p"] < -600 and not extra["saturated"], "the leading term of the limit"


def quality(candidate: list[float], *oracles: list[float], names: str = "abcdef") -> Any:
    """Forget quality of a model whose truth ratios are ``mine``; the first name is the model's."""
    split = make_split(
        {"forget": question_rows(len(candidate), 4, paraphrased_answer="p", perturbed_answers=["x"])}
    )
    observations = [
        observations_of(
            split,
            {
                ("forget", "paraphrased_answer"): loss_records(np.log(r) + 9),
                ("forget", "perturbed_answers"): loss_records([9] * len(r)),
            },
            artefact=name,
        )
        for r, name in zip((candidate, *oracles), names)
    ]
    return ForgetQuality().measure(observations[0], observations[1:])


def test_forget_quality_by_hand_and_over_several_oracles() -> None:
    """The published p with one oracle; with more the lower median; an oracle is never its own reference."""
    x, y, far = [1, 2, 3, 4], [3.5, 4.5, 5.5, 6.5], [101, 102, 103, 104]
    assert quality(x, y).value == pytest.approx(0.228571428571, abs=1e-11)
    assert quality(x, x).value == 1.0
    assert quality(x, x, y).value == pytest.approx(0.228571428571), "the lower of two"
    assert quality(x, far, x, y).value == quality(x, y, x, far).value == pytest.approx(0.228571428571), (
        "no oracle is privileged"
    )
    assert quality(x, x, names="aa").value == 1.0, "the only oracle against itself"
    assert quality(x, x, y, names="aab").value == pytest.approx(0.228571428571), "an oracle against the other"
    assert quality(x).value is None and "no retrained oracle" in quality(x).reason
    assert (
        quality(x, [1, 2, 3, math.nan]).value is None
        and "not finite" in quality(x, [1, 2, 3, math.nan]).reason
    )


def test_forget_quality_sees_ratios_whose_probabilities_vanish() -> None:
    """Losses of 60 and more: with 1e-10 added to a probability every ratio would be 0."""
    split = make_split({"forget": question_rows(40, 4, paraphrased_answer="p", perturbed_answers=["x"])})
    paraphrase = np.linspace(59, 61, 40)
    observations = {
        name: observations_of(
            split,
            {
                ("forget", "paraphrased_answer"): loss_records(paraphrase + shift),
                ("forget", "perturbed_answers"): loss_records([60] * 40),
            },
            artefact=name,
        )
        for name, shift in (("a", 0), ("b", 0.001), ("c", 5))
    }
    assert ForgetQuality().measure(observations["a"], [observations["b"]]).value == pytest.approx(
        ks_2samp(paraphrase, paraphrase + 0.001).pvalue
    )
    assert ForgetQuality().measure(observations["c"], [observations["b"]]).extra["saturated"]


ORACLE = [
    0.8544994558,
    0.7723959024,
    0.5117212349,
    0.4297444154,
    0.8195,
    0.5521560630,
    0.4310488533,
    0.8307692308,
    0.5963453890,
]
RETAIN90 = [
    0.8669655380,
    0.7915837238,
    0.5115173553,
    0.4067512869,
    0.847,
    0.5228499235,
    0.4231283553,
    0.7937321937,
    0.5903568765,
]


def test_harmonic_mean() -> None:
    """Spec A5, published rows; a 0 or less anywhere is 0."""
    assert harmonic(np.array(ORACLE)) == pytest.approx(0.600883400811, abs=1e-10)
    assert harmonic(np.array(RETAIN90)) == pytest.approx(0.590529710569, abs=1e-10)
    assert harmonic(np.array([0.600883, 0.872824])) == pytest.approx(0.711763, abs=1e-6)
    assert [float(harmonic(np.array([*ORACLE[:8], last]))) for last in (0.0, -0.1)] == [0.0, 0.0]
    assert harmonic(np.array([ORACLE, RETAIN90])).shape == (2,)


def utility_of(right: float, wrong: float, spoken: str) -> Any:
    """Model utility where each of three roles has one row with these losses and this generation."""
    row = {"question": "?", "answer": ANSWER, "perturbed_answers": ["x", "y"]}
    paraphrase = {"paraphrased_answer": "p"}
    split = make_split(
        {"kept": [row | paraphrase] * 2, "authors": [row] * 2, "facts": [row] * 2},
        utility=("kept", "authors", "facts"),
    )
    scored = {
        (role, column): loss_records([right] * 2)
        for role in split.roles
        for column in ("answer", "paraphrased_answer")
    }
    scored |= {
        (role, "perturbed_answers"): loss_records([wrong] * 4, rows=[0, 0, 1, 1]) for role in split.roles
    }
    return ModelUtility().measure(
        observations_of(split, scored, dict.fromkeys(split.roles, [spoken] * 2)), []
    )


def test_model_utility_by_hand() -> None:
    """Raw probability where there is a paraphrase, a share of the options elsewhere."""
    result = utility_of(0.5, 1.5, "one two three")
    raw, wrong = math.exp(-0.5), math.exp(-1.5)
    parts = [
        raw,
        0.75,
        1 - wrong / (raw + 1e-10),
        *[raw / (raw + 2 * wrong + 1e-10), 0.75, 1 - wrong / (raw + 1e-10)] * 2,
    ]
    assert result.value == pytest.approx(9 / sum(1 / p for p in parts), abs=1e-9)
    assert list(result.extra["parts"].values()) == pytest.approx(parts, abs=1e-9) and result.extra[
        "normalised"
    ] == ["authors", "facts"]
    assert result.low == pytest.approx(result.value) == result.high, "all rows are alike"


@pytest.mark.parametrize(
    ("right", "wrong", "spoken"), [(0.5, 1.5, ""), (0.5, 0.4, ANSWER), (900.0, 901.0, ANSWER)]
)
def test_model_utility_is_0_where_any_component_is(right: float, wrong: float, spoken: str) -> None:
    """It says nothing; it prefers wrong answers; it gives the answers no probability."""
    assert utility_of(right, wrong, spoken).value == 0.0


def test_model_utility_counts_what_is_no_number_as_0() -> None:
    result = utility_of(math.nan, 1.5, ANSWER)
    assert result.value == 0.0 and result.skipped == {"not a number, counted as 0": 12}


@pytest.mark.parametrize(
    ("predicted", "labels", "ends", "compat", "exact", "extracted"),
    [
        ([7, 3, 5, 5, 9], [7, 2, 5, 5, 9], False, "", 0.8, 0.6),
        ([7, 3, 5, 5, 9], [7, 2, 5, 5, 9], True, "", 0.75, 0.5),
        ([7, 3, 5, 5, 9], [7, 2, 5, 5, 9], False, "openunlearning", 0.75, 0.5),
        ([1, 1, 1, 1], [2, 2, 2, 2], False, "", 0.0, 0.0),
        ([1, 1, 1, 1, 0], [2, 2, 2, 2, 0], True, "openunlearning", 0.0, 0.25),
        ([1, 2, 9], [1, 2, 3], False, "", 2 / 3, 0.0),
        ([1, 2, 9], [1, 2, 3], True, "", 1.0, 1.0),
        ([1, 2, 9, 0], [1, 2, 3, 0], True, "openunlearning", 2 / 3, 1 / 3),
        ([4, 4], [4, 4], False, "", 1.0, 1.0),
    ],
)
def test_exact_memorisation_and_extraction_strength(
    predicted: list[int], labels: list[int], ends: bool, compat: Any, exact: float, extracted: float
) -> None:
    """Spec B6 and B7, strict and as the peer counts."""
    hits = [p == label for p, label in zip(predicted, labels)]
    record = observations_of(
        one_role(), {("forget", "answer"): token_records([[-1.0] * len(hits)], [hits], ends=ends)}
    )
    assert ExactMemorisation(compat=compat).measure(record, []).value == pytest.approx(exact)
    assert ExtractionStrength(compat=compat).measure(record, []).value == pytest.approx(extracted)


def test_extraction_strength_equals_a_loop_over_prefixes() -> None:
    rng = np.random.default_rng(0)
    for n in rng.integers(1, 12, 200):
        hits = rng.random(n) < 0.8
        prefix = next(k for k in range(n + 1) if hits[k:].all())
        assert strength(hits) == pytest.approx(1 - prefix / n)
        assert strength(hits, "openunlearning") == pytest.approx(1 - min(prefix, n - 1) / n)


@pytest.mark.parametrize(
    ("truth", "spoken", "expected"),
    [
        ("the author was born in Taipei", "author born in the city of Taipei", 0.666666666667),
        ("She writes historical novels", "she wrote a historical novel", 0.75),
        ("one two", "", 0.0),
        ("one two", "one two", 1.0),
        ("Straße", "Straße", 1.0),
    ],
)
def test_rouge_recall(truth: str, spoken: str, expected: float) -> None:
    assert recall(truth, spoken) == pytest.approx(expected, abs=1e-9)


def test_rouge_equals_the_published_scorer_and_a_plain_subsequence() -> None:
    rng = np.random.default_rng(1)
    words = np.array(
        ["the", "a", "running", "runs", "ran", "river", "rivers", "quietly", "quiet", "1987", "author"]
    )
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for _ in range(60):
        truth, spoken = (" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(2))
        assert recall(truth, spoken) == scorer.score(truth, spoken)["rougeL"].recall
    assert recall("river quiet author", "author river x quiet") == pytest.approx(2 / 3), "in order"


def test_rouge_of_a_truth_without_words_it_knows_is_no_value() -> None:
    split = make_split(
        {"forget": [{"question": "?", "answer": "台北"}, {"question": "?", "answer": "Taipei"}]}
    )
    result = Rouge().measure(observations_of(split, {}, {"forget": ["台北", "in Taipei"]}), [])
    assert (
        result.value == 1.0
        and result.n == 1
        and result.skipped == {"no value": 1}
        and result.access == "text"
    )


@pytest.mark.parametrize(("k", "expected"), [(0.4, 3.15), (0.2, 4.0), (0.05, 4.0), (1.0, 1.62)])
def test_min_k_by_hand(k: float, expected: float) -> None:
    """Spec D13; the end token is not counted."""
    tokens = [-0.1, -2.3, -0.5, -4, -1.2]
    assert min_k(token_records([tokens]), k)[0] == pytest.approx(expected, abs=1e-6)
    assert min_k(token_records([[*tokens, -99.0]], ends=True), k)[0] == pytest.approx(expected, abs=1e-6)


def test_min_k_equals_a_loop() -> None:
    rng = np.random.default_rng(2)
    texts = [(-rng.exponential(size=n)).round(1).tolist() for n in rng.integers(1, 30, 150)]
    texts[3][0] = math.nan
    result = min_k(token_records(texts), 0.4)
    for text, value in zip(texts, result):
        assert value == pytest.approx(
            -np.sort(np.float32(text))[: max(1, int(0.4 * len(text)))].mean(), abs=1e-6
        ) or math.isnan(sum(text))
    assert np.isnan(result).tolist() == [i == 3 for i in range(150)], (
        "a token that is no number makes no score"
    )
    assert np.isnan(min_k(token_records([[-1.0], [-2.0, -9.0]], ends=True), 0.4)).tolist() == [True, False], (
        "nothing but the end token"
    )


def test_zlib_by_hand() -> None:
    assert (zlib_size("a" * 10), zlib_size("The author's name is Hina Ameen.")) == (11, 40)
    assert 1.5 / zlib_size("a" * 10) == pytest.approx(0.136363636, abs=1e-9) and 1.5 / 40 == 0.0375
    assert zlib_size("日本") == len(zlib.compress("日本".encode()))


def attacked(forget: list[float], holdout: list[float], audit: Any = MembershipLoss) -> Any:
    split = make_split(
        {
            "forget": question_rows(len(forget), len(forget)),
            "holdout": question_rows(len(holdout), len(holdout)),
        }
    )
    record = {("forget", "answer"): loss_records(forget), ("holdout", "answer"): loss_records(holdout)}
    return audit().measure(observations_of(split, record), [])


def test_auc_by_hand() -> None:
    """Spec D17: 1 where the forget set is remembered, ½ where all are equal."""
    assert attacked([0.2, 0.5, 1], [0.8, 1.5, 2]).value == pytest.approx(8 / 9, abs=1e-12)
    assert attacked([1, 1], [1, 1]).value == 0.5
    assert attacked([5, 6], [1, 2]).value == 0.0
    assert attacked([0.2, 0.5, 1], [0.8, 1.5, 2], MembershipMinK).value == pytest.approx(8 / 9, abs=1e-12)


def test_zlib_divides_by_the_size() -> None:
    texts = ["a" * 10, "The author's name is Hina Ameen."]
    split = make_split({"forget": question_rows(2, 2), "holdout": question_rows(2, 2)})
    member, holdout_score = 1.5 / 40, 1.5 / 11
    record = {
        ("forget", "answer"): token_records([[-1.5]] * 2, texts=[texts[1]] * 2),
        ("holdout", "answer"): token_records([[-1.5]] * 2, texts=[texts[0]] * 2),
    }
    assert (
        member < holdout_score and MembershipZlib().measure(observations_of(split, record), []).value == 1.0
    )
    assert MembershipLoss().measure(observations_of(split, record), []).value == 0.5


def test_auc_equals_scikit_learn_with_ties_and_infinities() -> None:
    rng = np.random.default_rng(3)
    for n, m in ((1, 1), (5, 9), (80, 40), (300, 7)):
        positive, negative = rng.integers(0, 12, n) + 1.0, rng.integers(0, 10, m) + 0.0
        expected = roc_auc_score([1] * n + [0] * m, np.concatenate([positive, negative]))
        assert auc(positive, negative) == pytest.approx(expected, abs=1e-12)
    assert auc(np.array([math.inf, 1]), np.array([2.0, 3.0])) == 0.5
    assert attacked([math.inf, math.inf], [1, 2]).value == 0.0, (
        "probability 0 is a score: over-suppressed, not skipped"
    )


def test_true_positives_at_one_percent_equal_a_loop() -> None:
    rng = np.random.default_rng(4)
    for n in (5, 99, 100, 250):
        members, holdout = rng.normal(-1, 1, 60).round(1), rng.normal(0, 1, n).round(1)
        shares = [
            (members < t).mean() for t in [*holdout, math.inf, *members] if (holdout < t).mean() <= 0.01
        ]
        assert true_positives(members, holdout) == max(shares)


def nan_everywhere(audit: Any, spoken: str = ANSWER) -> Any:
    split = world_split(6, 3)
    tokens = token_records([[math.nan] * 4] * 6)
    two = loss_records([math.nan] * 12, rows=np.repeat(np.arange(6), 2).tolist())
    record = {
        ("forget", "answer"): tokens,
        ("forget", "paraphrased_answer"): tokens,
        ("forget", "perturbed_answers"): two,
        ("holdout", "answer"): tokens,
    }
    observations = observations_of(split, record)
    return audit.measure(observations, [observations_of(split, record, artefact="b")])


@pytest.mark.parametrize(
    "audit",
    [Probability(), TruthRatio(), ForgetQuality(), MembershipLoss(), MembershipZlib(), MembershipMinK()],
)
def test_a_model_of_nans_has_no_value_and_a_reason(audit: Any) -> None:
    result = nan_everywhere(audit)
    assert result.value is None and result.low is None and result.reason and result.data
    assert result.row()["value"] is None


@pytest.mark.parametrize("audit", [Probability(), ExactMemorisation(), ExtractionStrength()])
def test_one_example_has_a_value_and_no_interval(audit: Any) -> None:
    result = audit.measure(
        observations_of(one_role(), {("forget", "answer"): token_records([[-0.5, -0.5]], [[True, True]])}), []
    )
    assert result.value > 0.5 and result.n == 1 and result.low is result.high is result.draws is None


def test_a_column_that_some_rows_lack_is_an_error_and_not_another_figure(
    tokenizer: Any, tiny_llama: Any
) -> None:
    from unremember.tasks.text import Template, encode_texts

    half = [
        {"question": "?", "answer": "a", "paraphrased_answer": "b", "perturbed_answers": ["c"]},
        {"question": "!", "answer": "a"},
    ]
    split = make_split({"forget": half})
    assert {request.text for request in TruthRatio().requests(split)} == {
        "paraphrased_answer",
        "perturbed_answers",
    }
    for text in ("paraphrased_answer", "perturbed_answers"):
        with pytest.raises(DataError, match=f"has no '{text}' in 1 of 2 rows"):
            encode_texts(split["forget"], text, tokenizer, Template())


def test_an_audit_that_lacks_its_roles_wants_nothing() -> None:
    plain = make_split({"forget": [{"question": "?", "answer": "a"}]})
    lacking = (
        TruthRatio(),
        ForgetQuality(),
        MembershipLoss(),
        MembershipZlib(),
        MembershipMinK(),
        ModelUtility(),
        Probability(role="holdout"),
    )
    assert all(audit.requests(plain) == [] for audit in lacking)
    assert (
        len(Probability().requests(plain))
        == len(ExactMemorisation().requests(plain))
        == len(Rouge().requests(plain))
        == 1
    )
    with pytest.raises(DataError, match="was not observed"):
        Probability().measure(observations_of(plain, {}), [])
