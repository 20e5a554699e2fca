"""How well hardness ranks what forgetting costs: requests on the generated world, judged before and measured after."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import joblib
import numpy as np
import pandas as pd
import torch

from unremember import api
from unremember.data.split import Row, Split, make_split
from unremember.engine.settings import Settings
from unremember.experiments import cells
from unremember.files import write_text
from unremember.models.load import quiet
from unremember.plan import calibration
from unremember.plan.card import difficulty

REQUESTS, PEOPLE = 24, 4
"""Requests, and people's worth of rows in each."""
SHARES, DOUBLED = (1.0, 0.75, 0.5, 0.25), (False, True)
"""The share of a named person's rows that is asked for (the rest is retained); whether the same facts, asked in other words, are retained."""
TARGET, LIMIT, RATE = 0.25, 60, 3e-4
"""The mean probability of the forget answers at which a run ends, its most steps, and its learning rate."""
SEEDS, DRAWN = (0, 1), 2000
"""Seeds of a request's runs; and where the seeds begin that draw the requests (the measure was chosen on others)."""


def kind(number: int) -> tuple[float, bool]:
    """(share, doubled) of request ``number``: every pair in turn."""
    return SHARES[number % len(SHARES)], DOUBLED[number // len(SHARES) % len(DOUBLED)]


def request(rows: Sequence[Row], number: int) -> Split:
    """Request ``number``: some people's rows, or a part of more people's, of the same size."""
    rng, (share, doubled) = np.random.default_rng(DRAWN + number), kind(number)
    names = sorted({str(row["entity"]) for row in rows})
    people = set(rng.choice(names, round(PEOPLE / share), replace=False))
    asked = [row["entity"] in people and rng.random() < share for row in rows]
    forget, retain = ([row for row, a in zip(rows, asked) if a == mine] for mine in (True, False))
    again = [{**row, "question": row["paraphrased_question"]} for row in forget] if doubled else []
    return make_split({"forget": forget, "retain": [*retain, *again]})


def outcome(original: api.Result, split: Split, seed: int) -> float:
    """What gradient difference costs: the fall of the retain answers' probability once the forget answers' is at the target."""
    task = original.task
    made = api.forget(
        copy.deepcopy(original.model),
        split,
        "gradient_difference",
        tokenizer=task.tokenizer,
        template=task.template,
        quiet=True,
        seed=seed,
        watch=lambda model, _: cells.level(model, task, split) <= TARGET,
        every=1,
        lr=RATE,
        schedule="constant",
        warmup=0.0,
        batch_size=16,
        max_steps=LIMIT,
    )
    return cells.level(original.model, task, split, "retain") - cells.level(made.model, task, split, "retain")


def measure(original: api.Result, rows: Sequence[Row], number: int, folder: Path) -> dict[str, Any]:
    """Cosine (before) and cost (after) of a request: read from ``folder`` where it is there."""
    path, identity = (
        folder / f"{number}.json",
        f"{original.digest} {len(rows)} {TARGET} {LIMIT} {RATE} {SEEDS} {DRAWN} {kind(number)}",
    )
    if there := cells.kept(path, identity):
        return there
    quiet()
    torch.set_num_threads(1)
    split = request(rows, number)
    hard = difficulty(original.model, original.task, split, Settings(batch_size=16))
    cost = float(np.mean([outcome(original, split, seed) for seed in SEEDS]))
    found = {
        "identity": identity,
        **dict(zip(("share", "doubled"), kind(number))),
        "cosine": hard.cosine,
        "cost": cost,
    }
    write_text(path, json.dumps(found))
    return found


def calibrate(original: api.Result, split: Split, folder: Path) -> list[Mapping[str, Any]]:
    """All requests, one process a core."""
    rows = [*split["forget"].rows, *split["retain"].rows]
    return cells.on_all_cores(
        "requests", [joblib.delayed(measure)(original, rows, i, folder) for i in range(REQUESTS)]
    )


def page(
    arena: str, original: api.Result, found: Sequence[Mapping[str, Any]], out: Path
) -> calibration.Calibration:
    """Write the page and its figure; returns what ``plan`` reads."""
    made = calibration.fit(arena, original.digest, [f["cosine"] for f in found], [f["cost"] for f in found])
    chart = (
        alt.Chart(pd.DataFrame(found))
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X("cosine:Q", title="hardness before: cosine of what is kept and what is forgotten"),
            y=alt.Y("cost:Q", title="cost after: fall of the retain answers' probability"),
            color=alt.Color("share:O", title="share asked for"),
            shape=alt.Shape("doubled:N", title="same facts retained"),
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    chart.properties(width=560, height=380, title=f"Hardness against cost: {arena}").save(
        str(out / f"hardness-{arena}.png"), scale_factor=2
    )
    kinds = [
        (share, doubled, [f for f in found if (f["share"], f["doubled"]) == (share, doubled)])
        for doubled in DOUBLED
        for share in SHARES
    ]
    lines = [
        f"| {share:.0%} | {'yes' if doubled else 'no'} | {len(some)} | {np.mean([f['cosine'] for f in some]):.3f} "
        f"| {np.mean([f['cost'] for f in some]):.3f} |"
        for share, doubled, some in kinds
        if some
    ]
    text = f"""# Hardness

Before any training `unremember plan` asks how hard a request is: HAMU's cosine, over some trial steps, of the gradient of what is kept
and that of what is forgotten. Here {made.requests} requests on {arena} are judged so, then really forgotten with gradient difference
until the forget answers' probability is {TARGET} (mean of {len(SEEDS)} seeds). A request asks for all rows of {PEOPLE} people, or for a share of the
rows of more; for half of them the retain set holds the same facts, asked in other words.

Spearman's ρ of cosine and cost: **{made.rho:.2f}** (95 % of bootstrap draws: {made.low:.2f} … {made.high:.2f}). Original `{original.digest[:12]}`.

| share asked for | facts retained in other words | requests | mean cosine | mean cost |
| --- | --- | ---: | ---: | ---: |
{chr(10).join(lines)}

![{arena}](hardness-{arena}.png)
"""
    write_text(out / "hardness.md", text)
    return made
