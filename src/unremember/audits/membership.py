"""Membership inference: forget set against holdout. One convention: a higher score is less likely a member.

AUC = P(score(holdout) > score(forget)): near 1 the forget set looks trained on. The target is the oracle's
value.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from unremember.audits.bootstrap import auc, auc_draws
from unremember.audits.measurement import NO_ORACLE, Measurement, name_with_role, with_draws
from unremember.audits.probability import has, sum_by_row
from unremember.data.split import Split
from unremember.observe.kinds.gradient_norms import GradientNorms
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations, TokenRecords
from unremember.registry import audits

MEMBER_ROLES = ("forget", "holdout")
"""The roles of members and of non-members where an audit names no others."""
SAME_KIND = (0.4, 0.6)
"""An oracle has seen neither side: where its AUC lies outside, the two sides differ in kind."""
_SHIFT = (
    "the oracle, which saw neither, tells {} from {} (AUC {}): the two differ in kind, "
    "and part of the figure is that difference"
)


def min_k(records: TokenRecords, k: float) -> np.ndarray:
    """Return float64[n]: minus the mean of the max(1, ⌊k·L⌋) least likely of each text's L tokens.

    The end-of-sequence token is not counted; a text without other tokens has NaN.
    """
    # 1. The text of each token, without the tokens that end a text.
    text = np.repeat(np.arange(len(records)), records.lengths)
    last = np.zeros(len(text), dtype=bool)
    last[records.offsets[1:][records.ends] - 1] = True
    text, logprobs = text[~last], records.logprobs[~last].astype(np.float64)

    # 2. Rank the tokens of each text, the least likely first. NaN ranks first, so that it reaches the score.
    order = np.lexsort((np.where(np.isnan(logprobs), -np.inf, logprobs), text))
    lengths = np.bincount(text, minlength=len(records))
    rank = np.arange(len(text)) - np.repeat(np.cumsum(lengths) - lengths, lengths)

    # 3. Minus the mean over the first ranks.
    sizes = np.maximum(1, (k * lengths).astype(np.int64))
    least = order[rank < np.repeat(sizes, lengths)]
    return -sum_by_row(logprobs[least], text[least], len(records)) / sizes


def min_k_pp(records: TokenRecords, k: float) -> np.ndarray:
    """Return float64[n], Min-K %++: as Min-K %, of (log p - μ)/σ.

    μ and σ² are the moments of log p(v) under p; σ² counts as at least 1e-6.
    """
    mean, variance = np.asarray(records.moments, dtype=np.float64).T
    standardised = (records.logprobs - mean) / np.sqrt(np.maximum(variance, 1e-6))
    return min_k(dataclasses.replace(records, logprobs=standardised), k)


def zlib_size(text: str) -> int:
    """Return the bytes of a text after zlib compression at its default level."""
    return len(zlib.compress(text.encode()))


def true_positives(members: np.ndarray, holdout: np.ndarray) -> float:
    """Return the largest share of members caught while at most 1 % of the holdout is."""
    return float((members < np.sort(holdout)[len(holdout) // 100]).mean())


def measure_membership(
    name: str,
    observations: Observations,
    members: np.ndarray,
    holdout: np.ndarray,
    *,
    roles: tuple[str, str] = MEMBER_ROLES,
) -> Measurement:
    """Measure how well scores tell members from non-members: the AUC, and the rate at 1 % false positives.

    A score of infinity is a score: a token of probability 0 is as unlikely a member as can be.

    Args:
        members: float64[n], the scores of the rows of ``roles[0]``; NaN is skipped.
        holdout: float64[m], those of the rows of ``roles[1]``.
    """
    scored_members, scored_holdout = ~np.isnan(members), ~np.isnan(holdout)
    missing = int((~scored_members).sum() + (~scored_holdout).sum())
    blank = Measurement(
        name,
        None,
        n=int(scored_members.sum() + scored_holdout.sum()),
        higher_is="more_knowledge",
        artefact=observations.artefact,
        data=observations.split.digest,
        skipped={"no value": missing} if missing else {},
    )
    if not scored_members.any() or not scored_holdout.any():
        return dataclasses.replace(blank, reason=f"no membership score in the roles {' or '.join(roles)}")
    draws = None
    if min(len(members), len(holdout)) > 1:
        member_groups, holdout_groups = (observations.split[role].groups() for role in roles)
        draws = auc_draws(holdout, members, holdout_groups, member_groups)
    extra = {
        "tpr_at_1_fpr": true_positives(members[scored_members], holdout[scored_holdout]),
        "n_forget": int(scored_members.sum()),
        "n_holdout": int(scored_holdout.sum()),
    }
    area = auc(holdout[scored_holdout], members[scored_members])
    return dataclasses.replace(with_draws(blank, area, draws), extra=extra)


def membership_requests(
    split: Split, roles: tuple[str, str] = MEMBER_ROLES, moments: bool = False
) -> list[TokenScores]:
    """Return the token scores of both roles; none where a role has no answers."""
    if not all(has(split, role, "answer") for role in roles):
        return []
    return [TokenScores(role, moments=moments) for role in roles]


def reference_oracles(observations: Observations, oracles: Sequence[Observations]) -> list[Observations]:
    """Return the oracles that are not the model itself; the model where there is no other."""
    return [oracle for oracle in oracles if oracle.weights != observations.weights] or [observations]


@audits.register(
    "membership_loss",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=("forget", "holdout", "oracle"),
    taxonomy="evaluation.membership",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class MembershipLoss:
    """AUC of the loss attack between forget set and holdout."""

    def requests(self, split: Split) -> list[TokenScores]:
        return membership_requests(split)

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        members, holdout = (observations[TokenScores(role)].loss for role in MEMBER_ROLES)
        return measure_membership("membership_loss", observations, members, holdout)


@audits.register(
    "membership_zlib",
    paper="Extracting Training Data from Large Language Models",
    arxiv="2012.07805",
    needs=("forget", "holdout", "oracle"),
    taxonomy="evaluation.membership",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class MembershipZlib:
    """AUC of the loss over the compressed size of the answer."""

    def requests(self, split: Split) -> list[TokenScores]:
        return membership_requests(split)

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        sides = [observations[TokenScores(role)] for role in MEMBER_ROLES]
        sizes = [np.array([zlib_size(text) for text in records.texts]) for records in sides]
        members, holdout = (records.loss / size for records, size in zip(sides, sizes))
        return measure_membership("membership_zlib", observations, members, holdout)


@audits.register(
    "membership_mink",
    paper="Detecting Pretraining Data from Large Language Models",
    arxiv="2310.16789",
    needs=("forget", "holdout", "oracle"),
    taxonomy="evaluation.membership",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class MembershipMinK:
    """AUC of the Min-K % attack: the mean of the share ``k`` of least likely tokens.

    Args:
        k: The share of tokens.
        members: The role of the members.
        nonmembers: The role of the non-members.
    """

    k: float = 0.4
    members: str = "forget"
    nonmembers: str = "holdout"

    def requests(self, split: Split) -> list[TokenScores]:
        return membership_requests(split, (self.members, self.nonmembers))

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        roles = (self.members, self.nonmembers)
        members, holdout = (min_k(observations[TokenScores(role)], self.k) for role in roles)
        name = name_with_role("membership_mink", self.members, "forget")
        return measure_membership(name, observations, members, holdout, roles=roles)


@audits.register(
    "membership_minkpp",
    paper="Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language Models",
    arxiv="2404.02936",
    needs=("forget", "holdout", "oracle"),
    taxonomy="evaluation.membership",
    fidelity="code",
    default=False,
)
@dataclasses.dataclass(frozen=True)
class MembershipMinKPP:
    """AUC of the Min-K %++ attack: the least likely tokens, relative to what their distribution expects."""

    k: float = 0.4

    def requests(self, split: Split) -> list[TokenScores]:
        return membership_requests(split, moments=True)

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        sides = [observations[TokenScores(role, moments=True)] for role in MEMBER_ROLES]
        members, holdout = (min_k_pp(records, self.k) for records in sides)
        return measure_membership("membership_minkpp", observations, members, holdout)


@audits.register(
    "membership_gradnorm",
    paper="OpenUnlearning",
    arxiv="2506.12618",
    needs=("forget", "holdout", "oracle", "gradients"),
    taxonomy="evaluation.membership",
    fidelity="code",
    default=False,
)
@dataclasses.dataclass(frozen=True)
class MembershipGradNorm:
    """AUC of the gradient's size: the mean over the weight tensors of its 2-norm, for each answer."""

    def requests(self, split: Split) -> list[GradientNorms]:
        return [GradientNorms(role) for role in MEMBER_ROLES] if membership_requests(split) else []

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        members, holdout = (observations[GradientNorms(role)] for role in MEMBER_ROLES)
        measurement = measure_membership("membership_gradnorm", observations, members, holdout)
        return dataclasses.replace(measurement, access="weights")


@audits.register(
    "membership_reference",
    paper="Membership Inference Attacks From First Principles",
    arxiv="2112.03570",
    needs=("forget", "holdout", "oracle"),
    taxonomy="evaluation.membership",
    fidelity="code",
    default=False,
)
@dataclasses.dataclass(frozen=True)
class MembershipReference:
    """AUC of the loss minus that of a reference that never saw the forget set: the mean over the oracles.

    An oracle is compared with the others; one that has no other stands at ½ by construction.
    """

    def requests(self, split: Split) -> list[TokenScores]:
        return membership_requests(split)

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        name = "membership_reference"
        if not oracles:
            blank = Measurement(name, None, higher_is="more_knowledge", artefact=observations.artefact)
            return dataclasses.replace(blank, data=observations.split.digest, reason=NO_ORACLE)
        references = reference_oracles(observations, oracles)
        excess = []
        for role in MEMBER_ROLES:
            reference = np.mean([oracle[TokenScores(role)].loss for oracle in references], axis=0)
            excess.append(observations[TokenScores(role)].loss - reference)
        return measure_membership(name, observations, *excess)


@audits.register(
    "privleak",
    paper="MUSE: Machine Unlearning Six-Way Evaluation for Language Models",
    arxiv="2407.06460",
    needs=("forget", "holdout", "oracle"),
    taxonomy="evaluation.membership",
    fidelity="code",
    default=False,
)
@dataclasses.dataclass(frozen=True)
class PrivLeak:
    """100 · (a - a_oracle) / a_oracle, a = 1 - AUC of Min-K %: below 0 a member, above 0 over-unlearned.

    It is computed from the mean of the oracles, never from an assumed ½; without an oracle there is no value.
    A note says where the oracles tell members from non-members, of which they saw neither: the two differ in
    kind.

    Args:
        k: The share of tokens.
        members: The role of the members.
        nonmembers: The role of the non-members.
    """

    k: float = 0.4
    members: str = "forget"
    nonmembers: str = "holdout"

    def requests(self, split: Split) -> list[TokenScores]:
        return membership_requests(split, (self.members, self.nonmembers))

    def measure(self, observations: Observations, oracles: Sequence[Observations]) -> Measurement:
        # 1. The AUC of the model and of each oracle.
        attack = MembershipMinK(self.k, self.members, self.nonmembers)
        references = reference_oracles(observations, oracles)
        attacks = [attack.measure(artefact, []) for artefact in (observations, *references)]
        blank = dataclasses.replace(
            attacks[0],
            name=name_with_role("privleak", self.members, "forget"),
            value=None,
            low=None,
            high=None,
            draws=None,
            higher_is="less_knowledge",
        )
        values = [measurement.value for measurement in attacks]
        if not oracles or None in values:
            missing = attacks[0].reason or "an oracle has no membership score"
            return dataclasses.replace(blank, reason=missing if oracles else NO_ORACLE)

        # 2. Note oracles that tell the two sides apart.
        areas = np.array(values, dtype=np.float64)
        shifted = [f"{area:.2f}" for area in areas[1:] if not SAME_KIND[0] <= area <= SAME_KIND[1]]
        if shifted:
            blank = dataclasses.replace(
                blank, note=_SHIFT.format(self.members, self.nonmembers, ", ".join(shifted))
            )

        # 3. The value and its draws, by the same formula.
        draws = [measurement.draws for measurement in attacks if measurement.draws is not None]
        leaks = privleak(np.array(draws)) if len(draws) == len(attacks) else None
        return with_draws(blank, float(privleak(areas)), leaks)


def privleak(areas: np.ndarray) -> np.ndarray:
    """Return PrivLeak of the AUCs [1 + oracles, …]: the model's comes first."""
    of_model, of_oracles = 1 - areas[0], np.mean(1 - areas[1:], axis=0)
    return 100 * (of_model - of_oracles) / (of_oracles + 1e-10)
