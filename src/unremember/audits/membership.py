"""Membership inference: forget set against holdout. One convention: a higher score is less likely a member.

AUC = P(score(holdout) > score(forget)): near 1 the forget set looks trained on, the oracle's value is the target.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from unremember.audits.bootstrap import auc, auc_draws
from unremember.audits.measurement import Measurement, with_draws
from unremember.audits.probability import by_row, has
from unremember.data.split import Split
from unremember.observe.records import Scores, Seen, Want
from unremember.registry import audits


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


def attack(name: str, seen: Seen, members: np.ndarray, others: np.ndarray) -> Measurement:
    """AUC of the scores of the forget set and the holdout, with its interval and the rate at 1 % false positives.

    A score of infinity is a score: a token of probability 0 is as unlikely a member as there can be.
    """
    kept, held = ~np.isnan(members), ~np.isnan(others)
    missing = int((~kept).sum() + (~held).sum())
    blank = Measurement(name, None, n=int(kept.sum() + held.sum()), higher_is="more_knowledge", artefact=seen.artefact,
                        data=seen.split.digest, skipped={"no value": missing} if missing else {})  # fmt: skip
    if not kept.any() or not held.any():
        return dataclasses.replace(blank, reason="no membership score in the forget set or the holdout")
    draws = None
    if min(len(members), len(others)) > 1:
        draws = auc_draws(others, members, seen.split["holdout"].groups(), seen.split["forget"].groups())
    extra = {"tpr_at_1_fpr": true_positives(members[kept], others[held]), "n_forget": int(kept.sum()), "n_holdout": int(held.sum())}
    return dataclasses.replace(with_draws(blank, auc(others[held], members[kept]), draws), extra=extra)


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
        return attack("membership_mink", seen, min_k(seen.scores("forget"), self.k), min_k(seen.scores("holdout"), self.k))
