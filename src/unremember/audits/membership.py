"""Membership inference: forget set against holdout. One convention: a higher score is less likely a member.

AUC = P(score(holdout) > score(forget)): near 1 the forget set looks trained on, the oracle's value is the target.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from unremember.audits.bootstrap import auc, auc_draws
from unremember.audits.measurement import NO_ORACLE, Measurement, of_role, with_draws
from unremember.audits.probability import by_row, has
from unremember.data.split import Split
from unremember.observe.records import Observations, Scores, Want
from unremember.registry import audits

ROLES = ("forget", "holdout")
"""Members and others, where nothing else is named."""
USUAL = (0.4, 0.6)
"""An oracle has seen neither side: where its AUC lies outside, the two sides are not of one kind."""
SHIFT = "the oracle, which saw neither, tells {} from {} (AUC {}): the two are not of one kind, and part of the figure is that difference"


def min_k(scores: Scores, k: float) -> np.ndarray:
    """float64[n]: minus the mean of the max(1, ⌊k·L⌋) least likely of a text's L tokens; NaN without tokens.

    The end-of-sequence token is not counted.
    """
    text = np.repeat(np.arange(len(scores)), scores.lengths)
    last = np.zeros(len(text), dtype=bool)
    last[scores.offsets[1:][scores.ends] - 1] = True
    text, logprobs = text[~last], scores.logprobs[~last].astype(np.float64)
    order = np.lexsort((np.where(np.isnan(logprobs), -np.inf, logprobs), text))
    lengths = np.bincount(text, minlength=len(scores))
    rank = np.arange(len(text)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    sizes = np.maximum(1, (k * lengths).astype(np.int64))
    least = order[rank < np.repeat(sizes, lengths)]
    return -by_row(logprobs[least], text[least], len(scores)) / sizes


def zlib_size(text: str) -> int:
    """Bytes of the text after zlib compression at its default level."""
    return len(zlib.compress(text.encode()))


def true_positives(members: np.ndarray, others: np.ndarray) -> float:
    """The largest share of members caught while at most 1 % of the others are."""
    return float((members < np.sort(others)[len(others) // 100]).mean())


def attack(
    name: str, seen: Observations, members: np.ndarray, others: np.ndarray, *, roles: tuple[str, str] = ROLES
) -> Measurement:
    """AUC of the scores of members and others (the rows of ``roles``), with its interval and the rate at 1 % false positives.

    A score of infinity is a score: a token of probability 0 is as unlikely a member as there can be.
    """
    kept, held = ~np.isnan(members), ~np.isnan(others)
    missing = int((~kept).sum() + (~held).sum())
    blank = Measurement(
        name,
        None,
        n=int(kept.sum() + held.sum()),
        higher_is="more_knowledge",
        artefact=seen.artefact,
        data=seen.split.digest,
        skipped={"no value": missing} if missing else {},
    )
    if not kept.any() or not held.any():
        return dataclasses.replace(blank, reason=f"no membership score in the roles {' or '.join(roles)}")
    draws = None
    if min(len(members), len(others)) > 1:
        draws = auc_draws(others, members, seen.split[roles[1]].groups(), seen.split[roles[0]].groups())
    extra = {
        "tpr_at_1_fpr": true_positives(members[kept], others[held]),
        "n_forget": int(kept.sum()),
        "n_holdout": int(held.sum()),
    }
    return dataclasses.replace(with_draws(blank, auc(others[held], members[kept]), draws), extra=extra)


def min_k_pp(scores: Scores, k: float) -> np.ndarray:
    """float64[n]: Min-K %++: as Min-K %, of (log p - μ)/σ, μ and σ² the moments of log p(v) under p (σ² at least 1e-6)."""
    mean, variance = np.asarray(scores.moments, dtype=np.float64).T
    return min_k(
        dataclasses.replace(scores, logprobs=(scores.logprobs - mean) / np.sqrt(np.maximum(variance, 1e-6))),
        k,
    )


def wanted(
    split: Split,
    kind: Literal["scores", "moments", "gradient_norms"] = "scores",
    roles: tuple[str, str] = ROLES,
) -> list[Want]:
    return [Want(kind, role) for role in roles] if all(has(split, role, "answer") for role in roles) else []


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

    def wants(self, split: Split) -> list[Want]:
        return wanted(split)

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        return attack("membership_loss", seen, seen.scores("forget").loss, seen.scores("holdout").loss)


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

    def wants(self, split: Split) -> list[Want]:
        return wanted(split)

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        found = [
            scores.loss / np.array([zlib_size(text) for text in scores.texts])
            for scores in (seen.scores("forget"), seen.scores("holdout"))
        ]
        return attack("membership_zlib", seen, *found)


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
    """AUC of the Min-K % attack: the mean of the share ``k`` least likely tokens. ``members`` and ``others`` are its roles."""

    k: float = 0.4
    members: str = "forget"
    others: str = "holdout"

    def wants(self, split: Split) -> list[Want]:
        return wanted(split, roles=(self.members, self.others))

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        roles = (self.members, self.others)
        found = [min_k(seen.scores(role), self.k) for role in roles]
        return attack(
            of_role("membership_mink", self.members, "forget"), seen, found[0], found[1], roles=roles
        )


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
    """AUC of the Min-K %++ attack: the least likely tokens, each beside what its distribution makes of any token."""

    k: float = 0.4

    def wants(self, split: Split) -> list[Want]:
        return wanted(split, "moments")

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        return attack(
            "membership_minkpp",
            seen,
            min_k_pp(seen.moments("forget"), self.k),
            min_k_pp(seen.moments("holdout"), self.k),
        )


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
    """AUC of the gradient's size: the mean over the weight tensors of the 2-norm of each answer's gradient."""

    def wants(self, split: Split) -> list[Want]:
        return wanted(split, "gradient_norms")

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        found = [seen.number(want) for want in self.wants(seen.split)]
        return dataclasses.replace(attack("membership_gradnorm", seen, *found), access="weights")


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
    """AUC of the loss beyond that of a reference that never saw the forget set: the oracles, or the others of them.

    An oracle that has no other to be compared with stands at ½ by construction.
    """

    def wants(self, split: Split) -> list[Want]:
        return wanted(split)

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        if not oracles:
            blank = Measurement(
                "membership_reference", None, higher_is="more_knowledge", artefact=seen.artefact
            )
            return dataclasses.replace(blank, data=seen.split.digest, reason=NO_ORACLE)
        found = [
            seen.scores(role).loss - np.mean([o.scores(role).loss for o in others(seen, oracles)], axis=0)
            for role in ("forget", "holdout")
        ]
        return attack("membership_reference", seen, *found)


def others(seen: Observations, oracles: Sequence[Observations]) -> list[Observations]:
    """The oracles that are not the model itself; itself where there is no other."""
    return [o for o in oracles if o.artefact != seen.artefact] or [seen]


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
    """100 · (a - a_oracle) / a_oracle, a = 1 - AUC of the Min-K % attack: below 0 still a member, above 0 over-unlearned.

    Read against the mean of the oracles, never against an assumed ½; without an oracle there is no value. The note says where the
    oracles tell ``members`` from ``others``, whom they have never seen either: their kinds differ.
    """

    k: float = 0.4
    members: str = "forget"
    others: str = "holdout"

    def wants(self, split: Split) -> list[Want]:
        return wanted(split, roles=(self.members, self.others))

    def measure(self, seen: Observations, oracles: list[Observations]) -> Measurement:
        audit, name = (
            MembershipMinK(self.k, self.members, self.others),
            of_role("privleak", self.members, "forget"),
        )
        mine, *retrained = (audit.measure(one, []) for one in (seen, *others(seen, oracles)))
        blank = dataclasses.replace(
            mine, name=name, value=None, low=None, high=None, draws=None, higher_is="less_knowledge"
        )
        values = [m.value for m in (mine, *retrained)]
        if not oracles or None in values:
            return dataclasses.replace(
                blank, reason=NO_ORACLE if not oracles else mine.reason or "an oracle has no membership score"
            )
        areas = np.array(values, dtype=np.float64)
        shifted = [f"{area:.2f}" for area in areas[1:] if not USUAL[0] <= area <= USUAL[1]]
        blank = dataclasses.replace(
            blank, note=SHIFT.format(self.members, self.others, ", ".join(shifted)) if shifted else ""
        )
        draws = (
            None
            if any(m.draws is None for m in (mine, *retrained))
            else [np.asarray(m.draws) for m in (mine, *retrained)]
        )
        return with_draws(blank, float(leak(areas)), None if draws is None else leak(np.array(draws)))


def leak(areas: np.ndarray) -> np.ndarray:
    """PrivLeak of the AUCs [1 + oracles, …]: the model's first."""
    of_model, of_oracles = 1 - areas[0], np.mean(1 - areas[1:], axis=0)
    return 100 * (of_model - of_oracles) / (of_oracles + 1e-10)
