"""Membership inference: forget set against holdout. One convention: a higher score is less likely a member.

AUC = P(score(holdout) > score(forget)): near 1 the forget set looks trained on, the oracle's value is the target.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from unremember.audits.measurement import Measurement, auc_interval
from unremember.audits.probability import has
from unremember.data.split import Split
from unremember.observe.records import Scores, Seen, Want
from unremember.registry import audits


def min_k(logprobs: np.ndarray, k: float) -> float:
    """Minus the mean of the max(1, ⌊k·n⌋) smallest token log-probabilities; NaN without tokens."""
    if not len(logprobs):
        return float("nan")
    size = max(1, int(k * len(logprobs)))
    return float(-np.sort(logprobs.astype(np.float64))[:size].mean())


def zlib_size(text: str) -> int:
    """Bytes of the text after zlib compression at its default level."""
    return len(zlib.compress(text.encode()))


def without_end(scores: Scores, i: int) -> np.ndarray:
    logprobs = scores.tokens(i)[0]
    return logprobs[:-1] if scores.ends[i] else logprobs


def true_positives(members: np.ndarray, others: np.ndarray) -> float:
    """The largest share of members caught while at most 1 % of the others are."""
    return float((members < np.sort(others)[len(others) // 100]).mean())


def attack(name: str, seen: Seen, members: np.ndarray, others: np.ndarray) -> Measurement:
    """AUC of the scores of the forget set and the holdout, with its interval and the rate at 1 % false positives."""
    groups = [np.array(seen.split[role].groups()) for role in ("forget", "holdout")]
    kept, held = np.isfinite(members), np.isfinite(others)
    if not kept.any() or not held.any():
        return Measurement(name, None, reason="no finite membership score", artefact=seen.artefact, higher_is="more_knowledge")
    area, low, high = auc_interval(others[held], members[kept], groups[1][held].tolist(), groups[0][kept].tolist())
    at_1 = true_positives(members[kept], others[held])
    skipped = {"no value": int((~kept).sum() + (~held).sum())}
    return Measurement(name, area, low, high, int(kept.sum() + held.sum()), "more_knowledge", artefact=seen.artefact,
                       data=seen.split["forget"].digest, skipped={k: v for k, v in skipped.items() if v},
                       extra={"tpr_at_1_fpr": at_1, "n_forget": int(kept.sum()), "n_holdout": int(held.sum())})  # fmt: skip


def wanted(split: Split) -> list[Want]:
    roles = ("forget", "holdout")
    return [Want("scores", role) for role in roles] if all(has(split, role, "answer") for role in roles) else []


@audits.register("membership_loss", paper="OpenUnlearning", arxiv="2506.12618", needs=("forget", "holdout", "oracle"), fidelity="code")
@dataclasses.dataclass(frozen=True)
class MembershipLoss:
    """AUC of the loss attack between forget set and holdout."""

    def wants(self, split: Split) -> list[Want]:
        return wanted(split)

    def measure(self, seen: Seen, oracles: list[Seen]) -> Measurement:
        return attack("membership_loss", seen, seen.scores("forget").loss, seen.scores("holdout").loss)


@audits.register("membership_zlib", paper="Extracting Training Data from Large Language Models", arxiv="2012.07805",
                 needs=("forget", "holdout", "oracle"), fidelity="code")  # fmt: skip
@dataclasses.dataclass(frozen=True)
class MembershipZlib:
    """AUC of the loss over the compressed size of the answer."""

    def wants(self, split: Split) -> list[Want]:
        return wanted(split)

    def measure(self, seen: Seen, oracles: list[Seen]) -> Measurement:
        found = [scores.loss / np.array([zlib_size(text) for text in scores.texts])
                 for scores in (seen.scores("forget"), seen.scores("holdout"))]  # fmt: skip
        return attack("membership_zlib", seen, *found)


@audits.register("membership_mink", paper="Detecting Pretraining Data from Large Language Models", arxiv="2310.16789",
                 needs=("forget", "holdout", "oracle"), fidelity="code")  # fmt: skip
@dataclasses.dataclass(frozen=True)
class MembershipMinK:
    """AUC of the Min-K % attack: the mean of the share ``k`` least likely tokens."""

    k: float = 0.4

    def wants(self, split: Split) -> list[Want]:
        return wanted(split)

    def measure(self, seen: Seen, oracles: list[Seen]) -> Measurement:
        found = [np.array([min_k(without_end(scores, i), self.k) for i in range(len(scores))])
                 for scores in (seen.scores("forget"), seen.scores("holdout"))]  # fmt: skip
        return attack("membership_mink", seen, *found)
