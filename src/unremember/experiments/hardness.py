"""How well hardness ranks the cost of forgetting: requests that are judged before and measured after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from unremember import api
from unremember.data.split import Row, Split, make_split
from unremember.engine.settings import Settings
from unremember.experiments.arenas import people_data, train_models
from unremember.files import write_text
from unremember.plan import calibration
from unremember.plan.card import trial_hardness
from unremember.runs.folder import artefact_of, split_of
from unremember.runs.matched import answer_probability, read_cell, write_cell
from unremember.runs.workers import require_ray, workers
from unremember.tasks.artefact import Artefact

HARDNESS_REQUESTS = 24
SHARES, DOUBLED = (1.0, 0.75, 0.5, 0.25), (False, True)
"""The share of a named person's rows that is requested, the others being retained; and whether the same
facts, asked in other words, are retained."""
_PEOPLE = 4
"""A request holds as many rows as so many people have."""
_TARGET, _LIMIT, _RATE = 0.25, 60, 3e-4
"""The mean probability of the forget answers at which a run ends, its most steps, and its learning rate."""
_SEEDS, _DRAWN = (0, 1), 2000
"""The seeds of a request's runs; the first seed that draws requests (the measure was chosen on others)."""


def hardness_experiment(world: str, out: Path, work: Path, table: Path | None = None) -> Path:
    """Calibrate hardness on a world of people; write the page and return it.

    Args:
        table: Where the calibration that ``plan`` reads is written too.
    """
    require_ray()
    data = people_data(world)
    original = artefact_of(str(train_models(data, work / world)[0]))
    results = measure_requests(original, split_of(data), work / world / "hardness")
    fitted = hardness_page(world, original, results, out)
    if table:
        write_text(table, json.dumps(dataclasses.asdict(fitted), indent=1) + "\n")
    return out / "hardness.md"


def request_kind(number: int) -> tuple[float, bool]:
    """Return (share, doubled) of a request: every pair in turn."""
    return SHARES[number % len(SHARES)], DOUBLED[number // len(SHARES) % len(DOUBLED)]


def draw_request(rows: Sequence[Row], number: int) -> Split:
    """Draw a request: all rows of some people, or a part of the rows of more people, of the same size."""
    rng, (share, doubled) = np.random.default_rng(_DRAWN + number), request_kind(number)
    names = sorted({str(row["entity"]) for row in rows})
    people = set(rng.choice(names, round(_PEOPLE / share), replace=False))
    requested = [row["entity"] in people and rng.random() < share for row in rows]
    forget, retain = (
        [row for row, flag in zip(rows, requested, strict=True) if flag == side] for side in (True, False)
    )
    reworded = [{**row, "question": row["paraphrased_question"]} for row in forget] if doubled else []
    return make_split({"forget": forget, "retain": [*retain, *reworded]})


def forgetting_cost(original: Artefact, split: Split, seed: int) -> float:
    """Return what gradient difference costs.

    That is the fall of the retain answers' probability once the forget answers' probability is at the target.
    """
    task = original.task

    def reached(model: Any, step: int) -> bool:
        return answer_probability(Artefact(model, task), split) <= _TARGET

    artefact = api.forget(
        original,
        split,
        "gradient_difference",
        quiet=True,
        seed=seed,
        watch=reached,
        every=1,
        lr=_RATE,
        schedule="constant",
        warmup=0.0,
        batch_size=16,
        max_steps=_LIMIT,
    )
    return answer_probability(original, split, "retain") - answer_probability(artefact, split, "retain")


def measure_request(shared: tuple[Artefact, Sequence[Row], Path], number: int) -> dict[str, Any]:
    """Return cosine (before) and cost (after) of a request, read where it was measured before.

    Args:
        shared: The original, the rows that requests are drawn from, and the folder.
    """
    original, rows, folder = shared
    kind = request_kind(number)
    path = folder / f"{number}.json"
    identity = f"{original.weights} {len(rows)} {_TARGET} {_LIMIT} {_RATE} {_SEEDS} {_DRAWN} {kind}"
    if stored := read_cell(path, identity):
        return stored
    split = draw_request(rows, number)
    hard = trial_hardness(original, split, Settings(batch_size=16))
    result = {
        "identity": identity,
        "share": kind[0],
        "doubled": kind[1],
        "cosine": hard.cosine,
        "cost": float(np.mean([forgetting_cost(original, split, seed) for seed in _SEEDS])),
    }
    write_cell(path, result)
    return result


def measure_requests(original: Artefact, split: Split, folder: Path) -> list[dict[str, Any]]:
    """Measure all requests on all workers."""
    rows = [*split["forget"].rows, *split["retain"].rows]
    numbers = range(HARDNESS_REQUESTS)
    return workers().run("requests", measure_request, (original, rows, folder), numbers)


def hardness_page(
    arena: str, original: Artefact, results: Sequence[Mapping[str, Any]], out: Path
) -> calibration.Calibration:
    """Write the page and its figure; return the calibration that ``plan`` reads."""
    cosines, costs = [row["cosine"] for row in results], [row["cost"] for row in results]
    fitted = calibration.fit_calibration(arena, original.weights, cosines, costs)
    draw_hardness(arena, results, out)
    text = f"""# Hardness

Before any training `unremember plan` measures how hard a request is: HAMU's cosine, over some trial steps, of
the gradients of what is kept and of what is forgotten. Here {fitted.requests} requests on {arena} are judged
so, then really forgotten with gradient difference until the forget answers' probability is {_TARGET} (mean of
{len(_SEEDS)} seeds). A request asks for all rows of {_PEOPLE} people, or for a share of the rows of more
people. For half of the requests the retain set holds the same facts, asked in other words.

Spearman's ρ of cosine and cost: **{fitted.rho:.2f}** (95 % of bootstrap draws:
{fitted.low:.2f} … {fitted.high:.2f}). Original `{original.weights[:12]}`.

| share asked for | facts retained in other words | requests | mean cosine | mean cost |
| --- | --- | ---: | ---: | ---: |
{chr(10).join(kind_lines(results))}

![{arena}](hardness-{arena}.png)
"""
    write_text(out / "hardness.md", text)
    return fitted


def kind_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line of the table for every kind of request."""
    lines = []
    for doubled in DOUBLED:
        for share in SHARES:
            own = [row for row in results if (row["share"], row["doubled"]) == (share, doubled)]
            if own:
                cosine, cost = (np.mean([row[name] for row in own]) for name in ("cosine", "cost"))
                reworded = "yes" if doubled else "no"
                lines.append(f"| {share:.0%} | {reworded} | {len(own)} | {cosine:.3f} | {cost:.3f} |")
    return lines


def draw_hardness(arena: str, results: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draw cost against hardness, a point a request."""
    points = alt.Chart(pd.DataFrame(results)).mark_point(filled=True, size=80)
    chart = points.encode(
        x=alt.X("cosine:Q", title="hardness before: cosine of what is kept and what is forgotten"),
        y=alt.Y("cost:Q", title="cost after: fall of the retain answers' probability"),
        color=alt.Color("share:O", title="share asked for"),
        shape=alt.Shape("doubled:N", title="same facts retained"),
    )
    out.mkdir(parents=True, exist_ok=True)
    chart = chart.properties(width=560, height=380, title=f"Hardness against cost: {arena}")
    chart.save(str(out / f"hardness-{arena}.png"), scale_factor=2)
