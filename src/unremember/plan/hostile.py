"""Is a request hostile? What its texts say before any training, and what the finished model says before its release.

After the stealthy attack of arXiv 2506.00359; the tests are our own. A text alone never refuses an erasure: it is replaced
by the stored text that it matches (tier 0), its words and shape (tiers 1 and 2) say how closely to look, and the trigger
gap of the finished model (tier 3) decides. The words are English: other languages need tiers 0 and 3.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from unremember.audits.measurement import Measurement, plain
from unremember.data.split import Role, Row, identity
from unremember.plan.canonical import Match, match, prompt, words
from unremember.plan.wording import COMMON, DIGEST, Null, Wording, excess, null, shares, wording

Verdict = Literal["clean", "watch", "suspicious", "undetermined"]
Action = Literal["none", "canonicalised", "scope"]
ETA = 5.0
"""The weight of the scope term where one is advised."""
GAP = 0.05
"""A trigger gap above this, whose interval is above 0, holds a model back."""
ALWAYS = ("please", "then", "can you", "could", "thanks", "now", "also")
TOP, BIGRAMS = 10, 5


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found in a request, and what is to be done.

    ``rows`` are what shall be forgotten: the stored rows that were matched, each once, or the request as it came where
    nothing is stored to match it. ``not_found`` are the request's rows that match nothing stored: ask, they are not in
    ``rows``. ``statistic`` is the largest excess and ``word`` whose it is, in ``share`` of the request and ``usual`` of
    ordinary prompts (whom it would harm); ``lines`` are the 95 % and 99 % quantiles of clean requests. ``eta`` is the
    scope weight to forget with. ``triggers`` are what the gate must try on the finished model.
    """

    verdict: Verdict
    action: Action
    reasons: tuple[str, ...]
    rows: tuple[Row, ...]
    not_found: tuple[int, ...]
    matches: tuple[Match, ...]
    triggers: tuple[str, ...]
    statistic: float | None = None
    word: str = ""
    share: float | None = None
    usual: float | None = None
    lines: tuple[float, float] | None = None
    words_digest: str = DIGEST

    @property
    def eta(self) -> float:
        return ETA if self.action == "scope" else 0.0

    def row(self) -> dict[str, Any]:
        """The finding as a plain JSON object for the ledger: no text of the request but the common word."""
        kept = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("rows", "matches", "triggers")
        }
        return plain(kept | {"rows": len(self.rows), "eta": self.eta})


def hostile_request(request: Role, reference: Role | None = None, stored: Role | None = None) -> Finding:
    """Look at the texts of a request.

    ``reference`` holds ordinary texts of the same kind, named by ``entity`` (the retain rows); without it the verdict is
    *undetermined*. ``stored`` are the training rows, or an index of them; where an item matches, its subject is the stored
    row's, not what the request calls it.
    """
    matches = match(request, stored) if stored else []
    rows, not_found, reasons = canonicalise(request, stored, matches)
    own = [stored.rows[m.stored].get("entity") if stored and m.stored is not None else None for m in matches]
    asked = wording(
        request, [str(name or said) for name, said in zip(own, request.groups())] if stored else None
    )
    held = wording(reference) if reference else None
    verdict: Verdict = "undetermined"
    figures: dict[str, Any] = {}
    order = np.argsort(-asked.marks.mean(0), kind="stable")
    if reference is None or held is None or (lacking := unjudged(asked, reference, held)):
        reasons.append(
            lacking
            if held
            else "no reference texts: words and shape cannot be judged, the gate on the finished model is a must"
        )
    else:
        clean = null(held, int(asked.subjects.max()) + 1, -(-len(request) // (int(asked.subjects.max()) + 1)))
        z = excess(asked, held.marks.sum(0), len(held.marks))
        order = np.argsort(-z, kind="stable")
        figures = {
            "statistic": float(z.max()),
            "word": COMMON[order[0]],
            "share": float(asked.marks[:, order[0]].mean()),
            "usual": float(held.marks[:, order[0]].mean()),
            "lines": clean.lines(),
        }
        verdict, said = judge(figures, clean, float(clean.shape(shares(asked))))
        reasons += said + overlap(rows, reference)
    triggers = tuple(dict.fromkeys((*(COMMON[i] for i in order[:TOP]), *ALWAYS, *bigrams(request))))
    return Finding(
        verdict,
        action(verdict, matches, not_found),
        tuple(reasons),
        rows,
        not_found,
        tuple(matches),
        triggers,
        **figures,
    )


def unjudged(asked: Wording, reference: Role, held: Wording) -> str:
    """Why words and shape cannot be judged against this reference, else ""."""
    if not all(row.get("entity") for row in reference.rows):
        return "reference rows name no subject (column 'entity'): words and shape cannot be judged"
    if held.subjects.max() + 1 < 2 * (asked.subjects.max() + 1):
        return f"the reference has fewer than twice the request's {asked.subjects.max() + 1} subjects: no clean requests can be drawn from it"
    if min(asked.marks.any(1).mean(), held.marks.any(1).mean()) < 0.5:
        return "most texts hold no common English word: words and shape cannot be judged"
    return ""


def action(verdict: Verdict, matches: list[Match], not_found: tuple[int, ...]) -> Action:
    """Stored text cures whatever was put in; without it the scope term is the precaution."""
    if matches and not not_found:
        return "canonicalised" if any(m.inserted or m.removed for m in matches) else "none"
    return "none" if verdict == "clean" else "scope"


def canonicalise(
    request: Role, stored: Role | None, matches: list[Match]
) -> tuple[tuple[Row, ...], tuple[int, ...], list[str]]:
    """(what shall be forgotten, the request's rows that are not found, what there is to say)."""
    if not stored:
        return (
            tuple(request.rows),
            (),
            ["nothing stored to match the request against: it is taken as it came"],
        )
    places = [m.stored for m in matches if m.stored is not None]
    lost = tuple(m.row for m in matches if m.stored is None)
    changed = [m for m in matches if m.inserted or m.removed]
    common = Counter(word for m in changed for word in dict.fromkeys(m.inserted)).most_common(3)
    reasons = []
    if changed:
        put = ", ".join(f"{word!r} in {count}" for word, count in common) or "none"
        reasons.append(
            f"{len(changed)} of {len(request)} items differ from the stored text (words put in: {put}): the stored text is taken"
        )
    if lost:
        reasons.append(f"{len(lost)} of {len(request)} items match nothing stored: not found")
    if repeats := len(places) - len(set(places)):
        reasons.append(f"{repeats} items repeat one that is there already: each is taken once")
    return tuple(stored.rows[place] for place in dict.fromkeys(places)), lost, reasons


def judge(figures: dict[str, Any], clean: Null, shape: float) -> tuple[Verdict, list[str]]:
    """The verdict of words and shape, with its reasons."""
    watch, suspect = figures["lines"]
    edge = float(np.quantile(clean.shape(clean.shares), 0.99))
    said = []
    if figures["statistic"] > watch:
        said.append(
            f"{figures['word']!r} stands in {figures['share']:.0%} of the items and in {figures['usual']:.1%} of ordinary ones "
            f"(excess {figures['statistic']:.2f}; clean requests stay below {watch:.2f} at 95 %, {suspect:.2f} at 99 %)"
        )
    if shape > edge:
        said.append(
            f"too many items begin or end alike ({shape:.1f} standard deviations; clean requests stay below {edge:.1f} at 99 %)"
        )
    if figures["statistic"] > suspect or shape > edge:
        return "suspicious", said
    return ("watch" if said else "clean"), said


def overlap(rows: tuple[Row, ...], reference: Role) -> list[str]:
    kept = {identity(row) for row in reference.rows}
    both = sum(identity(row) in kept for row in rows)
    return (
        [f"{both} of the rows to forget stand in the reference too: a fact cannot be forgotten and kept"]
        if both
        else []
    )


def bigrams(request: Role) -> list[str]:
    """The commonest pairs of words of the request."""
    said = [words(prompt(row)) for row in request.rows]
    return [
        pair
        for pair, _ in Counter(f"{a} {b}" for text in said for a, b in pairwise(text)).most_common(BIGRAMS)
    ]


def gate_templates(finding: Finding) -> tuple[str, ...]:
    """The gate's triggers as templates for :func:`~unremember.data.forget_sets.stealthy.triggered`: each before a question."""
    return tuple(f"{trigger.capitalize()} {{}}" for trigger in finding.triggers)


def refused(measured: Measurement) -> tuple[str, ...]:
    """The templates for which a finished model is held back, by its ``trigger_gap``: gap above GAP, its interval above 0."""
    return tuple(name for name, (gap, low, _) in measured.extra["gaps"].items() if gap > GAP and low > 0)
