"""The worth of every metric, from the figures of all models: the table, the figure and the page."""

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
from unremember.experiments.arenas import ArenaSource, people_data
from unremember.experiments.cells import Arena
from unremember.experiments.meta import Ratio
from unremember.experiments.metrics import (
    ATTACKED_STATES,
    KEPT_UTILITY,
    QUANTISED_BITS,
    RANDOM,
    RELEARN_RATE,
    UNLEARNING_METHODS,
    MetricFigures,
    measure_metrics,
    relearning_and_quantisation,
)
from unremember.experiments.pools import IGNORANT, KNOWING, pool_members
from unremember.files import write_text
from unremember.registry import methods as method_registry
from unremember.runs.workers import require_ray

NOT_FAITHFUL = "no more faithful than pools dealt at random"
NONE_COUNTS = "no unlearned model counts"
PUBLISHED_WORTH: dict[str, tuple[float, float | None]] = {
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
"""Faithfulness and symmetric robustness on TOFU models of 1.2 B parameters, measured again after
OpenUnlearning by the Unlearning Depth Score."""
_CLOSE = 0.1
"""Figures that differ by at most this are said to agree with the published ones."""
_COLUMNS = (
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
)


@dataclasses.dataclass(frozen=True)
class MetricWorth:
    """What one metric is worth.

    Args:
        chance: The 95 % interval of the faithfulness of pools dealt at random.
        n: The models of each pool that have the metric.
        threshold: The value up to which a model passes for one that does not know.
        counted: The unlearned models behind ``parts``.
        parts: R and Q.
        symmetric: Their symmetric variants.
        span: The 95 % interval of the robustness.
        rounded: Q of the oracles.
        reason: Why there is no robustness.
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
        """HM(R, Q)."""
        return meta.mean_of(*self.parts)

    @property
    def overall(self) -> float | None:
        """HM(faithfulness, robustness)."""
        return meta.mean_of(self.faithfulness, self.robustness)


def metrics_experiment(
    world: str, out: Path, work: Path, models: int = 12, methods: Sequence[str] = UNLEARNING_METHODS
) -> Path:
    """Measure what every metric is worth on a world of people; write the page and return it.

    Args:
        models: The models of each pool.
        methods: The methods of the unlearned models.

    Raises:
        ConfigError: The world, the number of models or a method is not possible; nothing is trained then.
    """
    people_data(world)
    pool_members(models)
    names = [method_registry.entry(name).name for name in methods]
    require_ray()
    arena = ArenaSource(work).arena(world)
    return metrics_page(arena, measure_metrics(arena, models, work / world / "metrics", names), out)


def metric_worth(name: str, figures: MetricFigures) -> MetricWorth | None:
    """Judge one metric over all models; None where a pool has no value of it."""
    knowing, ignorant = (
        [value for model in pool if (value := model["figures"].get(name)) is not None]
        for pool in (figures.knowing, figures.ignorant)
    )
    if not (knowing and ignorant):
        return None
    value, low, high = meta.faithfulness(knowing, ignorant)
    worth = MetricWorth(
        name,
        value,
        low,
        high,
        meta.chance(knowing, ignorant),
        (len(knowing), len(ignorant)),
        meta.threshold(knowing, ignorant),
    )
    if value <= worth.chance[1]:
        return dataclasses.replace(worth, reason=NOT_FAITHFUL)
    passing = [
        model
        for model in figures.counted
        if model["before"][name] is not None and model["before"][name] <= worth.threshold
    ]
    if not passing:
        return dataclasses.replace(worth, reason=NONE_COUNTS)
    return with_robustness(worth, passing, figures.retrained)


def with_robustness(
    worth: MetricWorth, passing: Sequence[Mapping[str, Any]], retrained: Sequence[Mapping[str, Any]]
) -> MetricWorth:
    """Add the robustness of a metric, from the unlearned models that it takes for ignorant ones."""
    name = worth.name
    relearned, quantised = ([before_after(m, name, state) for m in passing] for state in ATTACKED_STATES)
    oracles = {state: [before_after(m, name, state) for m in retrained] for state in ATTACKED_STATES}
    before, after = np.mean(oracles["relearned"], axis=0)
    oracle = float(before), float(after)
    r, q = [meta.relearning(m, oracle) for m in relearned], [meta.quantisation(m) for m in quantised]
    symmetric_r = [meta.relearning_symmetric(m, oracle) for m in relearned]
    symmetric_q = [meta.quantisation_symmetric(m) for m in quantised]
    reason = next((ratio.reason for part in (r, q) if mean_ratio(part) is None for ratio in part), "")
    return dataclasses.replace(
        worth,
        counted=len(passing),
        parts=(mean_ratio(r), mean_ratio(q)),
        symmetric=(mean_ratio(symmetric_r), mean_ratio(symmetric_q)),
        span=None if reason else robustness_interval(r, q, [model["method"] for model in passing]),
        rounded=mean_ratio([meta.quantisation(m) for m in oracles["quantised"]]),
        reason=reason,
    )


def before_after(model: Mapping[str, Any], name: str, state: str) -> meta.BeforeAfter:
    """Return a metric of one model before and after an attack; NaN where it has no value."""
    before, after = (
        math.nan if model[when][name] is None else model[when][name] for when in ("before", state)
    )
    return before, after


def mean_ratio(ratios: Sequence[Ratio]) -> float | None:
    """Return the mean of the ratios that have a value; None where none has."""
    values = [ratio.value for ratio in ratios if ratio.value is not None]
    return float(np.mean(values)) if values else None


def robustness_interval(
    r: Sequence[Ratio], q: Sequence[Ratio], methods: Sequence[str]
) -> tuple[float, float]:
    """Return the 95 % interval of HM(R, Q), whole methods being drawn with replacement."""
    parts = [np.array([ratio.value for ratio in part], dtype=np.float64) for part in (r, q)]
    draws = np.stack([mean_draws(values, methods) for values in parts], -1)
    return interval(np.where(np.isnan(draws).any(-1), np.nan, harmonic(draws)))


def ranked_metrics(figures: MetricFigures) -> list[MetricWorth]:
    """Judge every metric, the best first: by overall, then by faithfulness."""
    models = (*figures.knowing, *figures.ignorant)
    names = dict.fromkeys(name for model in models for name in model["figures"])
    rows = [worth for name in names if (worth := metric_worth(name, figures))]
    return sorted(rows, key=lambda row: (row.overall is None, -(row.overall or 0.0), -row.faithfulness))


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number as text; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def worth_row(row: MetricWorth) -> list[str]:
    """Return the table's row of a metric."""
    bounds = f" ({row.span[0]:.3f} … {row.span[1]:.3f})" if row.span else ""
    published = PUBLISHED_WORTH.get(row.name, (None, None))
    return [
        f"`{row.name}`",
        decimal(row.overall),
        f"{row.faithfulness:.3f} ({row.low:.3f} … {row.high:.3f})",
        *[decimal(part) for part in row.parts],
        decimal(row.robustness) + bounds,
        row.reason or str(row.counted),
        *[decimal(part) for part in row.symmetric],
        decimal(meta.mean_of(*row.symmetric)),
        decimal(row.rounded),
        *[decimal(value) for value in published],
    ]


def worth_markdown(rows: Sequence[MetricWorth]) -> str:
    """Return the table in Markdown."""
    lines = [_COLUMNS, ["---", *["---:"] * (len(_COLUMNS) - 1)], *[worth_row(row) for row in rows]]
    return "\n".join(f"| {' | '.join(texts)} |" for texts in lines)


def draw_worth(rows: Sequence[MetricWorth], title: str, path: Path) -> None:
    """Draw a line a metric: its faithfulness, and its robustness where it has one, with their intervals."""
    points: list[tuple[Any, ...]] = [
        (row.name, "faithfulness", row.faithfulness, row.low, row.high) for row in rows
    ]
    points += [(row.name, "robustness", row.robustness, *row.span) for row in rows if row.span]
    base = alt.Chart(pd.DataFrame(points, columns=["metric", "figure", "value", "low", "high"]))
    base = base.encode(y=alt.Y("metric:N", sort=[row.name for row in rows], title=None))
    bars = base.mark_rule().encode(x=alt.X("low:Q", title=None, scale=alt.Scale(domain=[0, 1])), x2="high:Q")
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(x="value:Q")
    chart = alt.layer(bars, dots).properties(width=320)
    facets = chart.facet(column=alt.Column("figure:N", title=None), title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    facets.save(str(path), scale_factor=2)


def beside_published(rows: Sequence[MetricWorth], column: int, what: str) -> str:
    """Compare our figures with the published ones: their rank correlation, which agree, and which do not.

    Args:
        column: 0 for the faithfulness, 1 for the symmetric robustness.
        what: The name of that figure, with which the sentence begins.
    """
    ours = {row.name: (row.faithfulness, meta.mean_of(*row.symmetric))[column] for row in rows}
    pairs = [
        (name, own, theirs)
        for name, published in PUBLISHED_WORTH.items()
        if (own := ours.get(name)) is not None and (theirs := published[column]) is not None
    ]
    if len(pairs) < 3:
        return f"{what}: too few metrics in common with the published ones to compare."
    rho = spearmanr([own for _, own, _ in pairs], [theirs for _, _, theirs in pairs]).statistic
    order = f"Spearman's ρ of the two orders {rho:.2f}"
    if math.isnan(rho):
        order = "all ours are equal, so there is no order to compare"
    agree, differ = (
        ", ".join(
            f"`{name}` ({own:.2f}, published {theirs:.2f})"
            for name, own, theirs in pairs
            if (abs(own - theirs) <= _CLOSE) == side
        )
        for side in (True, False)
    )
    return (
        f"{what}, {len(pairs)} metrics in common: {order}. Within {_CLOSE}: {agree or 'none'}. "
        f"Further off: {differ or 'none'}."
    )


def taught_text(figures: MetricFigures) -> str:
    """Return the mean forget probability of each form: whether it taught what it should."""
    means = []
    for form in (*KNOWING, *IGNORANT):
        values = [
            model["figures"]["probability"]
            for model in (*figures.knowing, *figures.ignorant)
            if model["name"].rsplit(" ", 1)[0] == form
        ]
        means.append(f"{form} {np.mean(values):.2f}")
    return ", ".join(means)


def counted_text(figures: MetricFigures) -> str:
    """Say how many unlearned models count, and why the others do not."""
    excluded = [model for model in figures.unlearned if not model["counts"]]
    short = sum(not model.get("reached") for model in excluded)
    by_method = Counter(str(model["method"]) for model in figures.counted)
    counts = ", ".join(f"{method} {n}" for method, n in by_method.items()) or "none"
    return (
        f"{len(figures.counted)} of {len(figures.unlearned)} unlearned models count ({counts}); {short} "
        f"did not reach the forget probability in time, {len(excluded) - short} kept less than "
        f"{KEPT_UTILITY:.0%} of the original's utility."
    )


def metrics_page(arena: Arena, figures: MetricFigures, out: Path) -> Path:
    """Write ``metrics.md`` and its figure; return the page."""
    rows, name = ranked_metrics(figures), f"metrics-{arena.name}.png"
    draw_worth(rows, f"Metrics: {arena.name}", out / name)
    control = next(row for row in rows if row.name == RANDOM)
    steps = relearning_and_quantisation(arena.split)[0].steps
    low, high = (f"{end:.2f}" for end in control.chance)
    text = f"""# Metrics

What a metric is worth, after OpenUnlearning ([arXiv 2506.12618](https://arxiv.org/abs/2506.12618)):
`unremember experiment metrics {arena.name}` measures whether it tells models that know from models that do
not (*faithfulness*), and whether it holds when an unlearned model is attacked (*robustness*). Every figure is
turned so that higher = more knowledge of the forget set.

**Faithfulness** is the AUC of {len(figures.knowing)} small models that were trained from scratch with the
knowledge (the question/answer pairs, biographies of the same people, the pairs in other words) over
{len(figures.ignorant)} that were trained without it (nothing in their place, wrong answers, biographies of
people from another world), at several learning rates and epochs. In brackets stands the 95 % interval over
models, which has no width where the pools do not overlap.

Mean forget probability by form: {taught_text(figures)}.

**Robustness** is HM(R, Q). R: what one epoch of the forget set ({steps} steps at {RELEARN_RATE:g}) teaches
the retrained models, over what it recovers from an unlearned one. Q: the figure before the weights are
rounded to {QUANTISED_BITS} bits, over the figure after. Both are clipped to [0, 1]; 1 is best. In
brackets stands the 95 % interval over methods. The symmetric variants count a fall as they count a rise.
Overall is HM(faithfulness, robustness).

{counted_text(figures)} Of these a metric's *models* are those that it takes for models that do not know: up
to the value that parts the pools best.

**Controls.** `{RANDOM}` is a number that knows nothing of the model: {control.faithfulness:.2f}. Models dealt
to the pools at random give {low} … {high} (95 %); a metric that is no more faithful than that has no
robustness. Q of the oracles is what rounding does to models that never knew.

{worth_markdown(rows)}

![{arena.name}]({name})

## Beside the published figures

The published figures are of TOFU models of 1.2 B parameters that were fine-tuned, not trained from scratch,
with 30 + 30 models. Their R and Q are the symmetric variants, over other unlearned models.

- {beside_published(rows, 0, "Faithfulness")}
- {beside_published(rows, 1, "Symmetric robustness")}
"""
    write_text(out / "metrics.md", text)
    return out / "metrics.md"
