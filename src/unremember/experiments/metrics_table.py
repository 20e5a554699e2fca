"""What every metric is worth, from the figures of all models: the table, the figure and the page of `unremember bench metrics`."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from unremember.audits.bootstrap import interval, mean_draws
from unremember.audits.model_utility import harmonic
from unremember.experiments import meta
from unremember.experiments.cells import Arena
from unremember.experiments.meta import Ratio
from unremember.experiments.metrics import BITS, RANDOM, RELEARN_RATE, STATES, UTILITY, Found, attacks_on
from unremember.experiments.pools import IGNORANT, KNOWING
from unremember.files import write_text

NOT_FAITHFUL = "no more faithful than pools dealt at random"
NONE_COUNTS = "no unlearned model counts"
PUBLISHED = {
    "extraction_strength": (0.891, 0.859),
    "exact_memorisation": (0.817, 0.750),
    "probability": (0.816, 0.757),
    "paraphrase_probability": (0.707, 0.875),
    "truth_preference": (0.947, 0.379),
    "rouge": (0.722, 0.333),
    "membership_loss": (0.902, None),
    "membership_zlib": (0.867, None),
    "membership_mink": (0.907, 0.675),
    "membership_minkpp": (0.816, None),
}
"""Faithfulness and symmetric robustness of TOFU models of 1.2 B parameters, re-measured after OpenUnlearning by the Unlearning Depth Score."""
CLOSE = 0.1
"""Figures within this are said to agree with the published ones."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What one metric is worth. ``parts`` are R and Q, ``symmetric`` their symmetric variants, ``rounded`` Q of the oracles.

    ``counted`` unlearned models stand behind ``parts``; ``reason`` says why there is no robustness.
    """

    name: str
    faithfulness: float
    low: float
    high: float
    chance: tuple[float, float]
    n: tuple[int, int]
    threshold: float
    counted: int = 0
    parts: tuple[float | None, float | None] = (None, None)
    symmetric: tuple[float | None, float | None] = (None, None)
    span: tuple[float, float] | None = None
    rounded: float | None = None
    reason: str = ""

    @property
    def robustness(self) -> float | None:
        return meta.mean_of(*self.parts)

    @property
    def overall(self) -> float | None:
        return meta.mean_of(self.faithfulness, self.robustness)


def judge(name: str, found: Found) -> Judged | None:
    """One metric over all models; None where a pool has no figure of it."""
    knowing, ignorant = (
        [value for one in side if (value := one["figures"].get(name)) is not None]
        for side in (found.knowing, found.ignorant)
    )
    if not (knowing and ignorant):
        return None
    value, low, high = meta.faithfulness(knowing, ignorant)
    blank = Judged(
        name,
        value,
        low,
        high,
        meta.chance(knowing, ignorant),
        (len(knowing), len(ignorant)),
        meta.threshold(knowing, ignorant),
    )
    if value <= blank.chance[1]:
        return dataclasses.replace(blank, reason=NOT_FAITHFUL)
    counted = [
        one
        for one in found.counted
        if one["before"][name] is not None and one["before"][name] <= blank.threshold
    ]
    if not counted:
        return dataclasses.replace(blank, reason=NONE_COUNTS)
    states = {state: [moved(one, name, state) for one in counted] for state in STATES}
    retrained = {state: [moved(one, name, state) for one in found.retrained] for state in states}
    oracle = (
        float(np.mean([m[0] for m in retrained["relearned"]])),
        float(np.mean([m[1] for m in retrained["relearned"]])),
    )
    r, q = (
        [meta.relearning(m, oracle) for m in states["relearned"]],
        [meta.quantisation(m) for m in states["quantised"]],
    )
    symmetric = (
        [meta.relearning_symmetric(m, oracle) for m in states["relearned"]],
        [meta.quantisation_symmetric(m) for m in states["quantised"]],
    )
    reason = next((x.reason for part in (r, q) if mean(part) is None for x in part), "")
    return dataclasses.replace(
        blank,
        counted=len(counted),
        parts=(mean(r), mean(q)),
        symmetric=(mean(symmetric[0]), mean(symmetric[1])),
        span=None if reason else robust_span(r, q, [one["method"] for one in counted]),
        rounded=mean([meta.quantisation(m) for m in retrained["quantised"]]),
        reason=reason,
    )


def moved(one: Mapping[str, Any], name: str, state: str) -> meta.Moved:
    """A metric of one model before and after; NaN where it has no value."""
    return tuple(math.nan if (value := one[at][name]) is None else value for at in ("before", state))  # type: ignore[return-value]


def mean(found: Sequence[Ratio]) -> float | None:
    """The mean of the ratios there are."""
    there = [one.value for one in found if one.value is not None]
    return float(np.mean(there)) if there else None


def robust_span(r: Sequence[Ratio], q: Sequence[Ratio], methods: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of HM(R, Q), whole methods drawn with replacement."""
    draws = np.stack(
        [mean_draws(np.array([x.value for x in part], dtype=np.float64), methods) for part in (r, q)], -1
    )
    return interval(np.where(np.isnan(draws).any(-1), np.nan, harmonic(draws)))


def judged(found: Found) -> list[Judged]:
    """Every metric, the best first: by overall, then by faithfulness."""
    names = dict.fromkeys(name for one in (*found.knowing, *found.ignorant) for name in one["figures"])
    rows = [row for name in names if (row := judge(name, found))]
    return sorted(rows, key=lambda row: (row.overall is None, -(row.overall or 0.0), -row.faithfulness))


def shown(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def line(row: Judged) -> list[str]:
    """A line of the table."""
    bounds = f" ({row.span[0]:.3f} … {row.span[1]:.3f})" if row.span else ""
    published = PUBLISHED.get(row.name, (None, None))
    return [
        f"`{row.name}`",
        shown(row.overall),
        f"{row.faithfulness:.3f} ({row.low:.3f} … {row.high:.3f})",
        *[shown(part) for part in row.parts],
        shown(row.robustness) + bounds,
        row.reason or str(row.counted),
        *[shown(part) for part in row.symmetric],
        shown(meta.mean_of(*row.symmetric)),
        shown(row.rounded),
        *[shown(one) for one in published],
    ]


def markdown(rows: Sequence[Judged]) -> str:
    head = [
        "metric",
        "overall",
        "faithfulness",
        "R",
        "Q",
        "robustness",
        "models",
        "R, symmetric",
        "Q, symmetric",
        "robustness, symmetric",
        "Q of the oracles",
        "published faithfulness",
        "published robustness, symmetric",
    ]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *[line(row) for row in rows]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw(rows: Sequence[Judged], title: str, path: Path) -> None:
    """A line a metric: its faithfulness, and its robustness where it has one, with their intervals."""
    points: list[tuple[Any, ...]] = [
        (row.name, "faithfulness", row.faithfulness, row.low, row.high) for row in rows
    ]
    points += [(row.name, "robustness", row.robustness, *row.span) for row in rows if row.span]
    base = alt.Chart(pd.DataFrame(points, columns=["metric", "figure", "value", "low", "high"]))
    base = base.encode(y=alt.Y("metric:N", sort=[row.name for row in rows], title=None))
    bars = base.mark_rule().encode(x=alt.X("low:Q", title=None, scale=alt.Scale(domain=[0, 1])), x2="high:Q")
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(x="value:Q")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = alt.layer(bars, dots).properties(width=320)
    drawn.facet(column=alt.Column("figure:N", title=None), title=title).save(str(path), scale_factor=2)


def compared(rows: Sequence[Judged], which: int, what: str) -> str:
    """A sentence on our figures beside the published ones: rank correlation, and which are near and which are not."""
    ours = {row.name: (row.faithfulness, meta.mean_of(*row.symmetric))[which] for row in rows}
    both = [
        (name, mine, theirs)
        for name, pair in PUBLISHED.items()
        if (mine := ours.get(name)) is not None and (theirs := pair[which]) is not None
    ]
    if len(both) < 3:
        return f"{what}: too few metrics in common with the published ones to compare."
    rho = spearmanr([mine for _, mine, _ in both], [theirs for _, _, theirs in both]).statistic
    sides = {
        side: ", ".join(
            f"`{name}` ({mine:.2f}, published {theirs:.2f})"
            for name, mine, theirs in both
            if (abs(mine - theirs) <= CLOSE) == side
        )
        for side in (True, False)
    }
    order = (
        "all ours are equal, so there is no order to compare"
        if math.isnan(rho)
        else f"Spearman's ρ of the two orders {rho:.2f}"
    )
    return f"{what}, {len(both)} metrics in common: {order}. Within {CLOSE}: {sides[True] or 'none'}. Further off: {sides[False] or 'none'}."


def taught(found: Found) -> str:
    """The mean forget probability by what a model was trained on: whether each form taught what it should."""
    means = []
    for form in (*KNOWING, *IGNORANT):
        mine = [
            one["figures"]["probability"]
            for one in (*found.knowing, *found.ignorant)
            if one["name"].rsplit(" ", 1)[0] == form
        ]
        means.append(f"{form} {np.mean(mine):.2f}")
    return ", ".join(means)


def excluded(found: Found) -> str:
    """How many unlearned models count, and why the others do not."""
    lost = [one for one in found.unlearned if not one["counts"]]
    short = sum(not one.get("reached") for one in lost)
    by_method = ", ".join(
        f"{method} {n}" for method, n in Counter(str(one["method"]) for one in found.counted).items()
    )
    return (
        f"{len(found.counted)} of {len(found.unlearned)} unlearned models count ({by_method or 'none'}); {short} did not reach the forget "
        f"probability in time, {len(lost) - short} kept less than {UTILITY:.0%} of the original's utility."
    )


def page(arena: Arena, found: Found, out: Path) -> Path:
    """Write ``metrics.md`` and its figure to ``out``."""
    rows, name = judged(found), f"metrics-{arena.name}.png"
    draw(rows, f"Metrics: {arena.name}", out / name)
    control, steps = next(row for row in rows if row.name == RANDOM), attacks_on(arena.split)[0].steps
    low, high = (f"{end:.2f}" for end in control.chance)
    text = f"""# Metrics

What a metric is worth, after OpenUnlearning ([arXiv 2506.12618](https://arxiv.org/abs/2506.12618)): `unremember bench metrics {arena.name}`
asks whether it tells models that know from models that do not (*faithfulness*), and whether it stays where it is when an unlearned model is
pushed (*robustness*). Every figure is turned so that higher = more knowledge of the forget set.

**Faithfulness** is the AUC of {len(found.knowing)} small models that were trained from scratch with the knowledge (the question/answer pairs,
biographies of the same people, the pairs in other words) over {len(found.ignorant)} that were trained without it (nothing in their place, wrong
answers, biographies of people from another world), at several learning rates and epochs. In brackets stands the 95 % interval over models,
which has no width where the pools do not overlap.

Mean forget probability by form: {taught(found)}.

**Robustness** is HM(R, Q). R: what one epoch of the forget set ({steps} steps at {RELEARN_RATE:g}) teaches the retrained models, over what it
brings out of an unlearned one. Q: the figure before the weights are rounded to {BITS} bits, over the figure after. Both are clipped to [0, 1];
1 is best. In brackets stands the 95 % interval over methods. The symmetric variants count a fall as they count a rise. Overall is
HM(faithfulness, robustness).

{excluded(found)} Of these a metric's *models* are those that it takes for models that do not know: up to the value that parts the pools best.

**Controls.** `{RANDOM}` is a number that knows nothing of the model: {control.faithfulness:.2f}. Models dealt to the pools at random give
{low} … {high} (95 %); a metric that is no more faithful than that has no robustness. Q of the oracles is what rounding does to models that
never knew.

{markdown(rows)}

![{arena.name}]({name})

## Beside the published figures

Published are re-measured figures of TOFU models of 1.2 B parameters that were fine-tuned, not trained from scratch, with 30 + 30 models, and the
symmetric variants of R and Q over other unlearned models.

- {compared(rows, 0, "Faithfulness")}
- {compared(rows, 1, "Symmetric robustness")}
"""
    write_text(out / "metrics.md", text)
    return out / "metrics.md"
