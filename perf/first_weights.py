"""What a small model knows of the world of 100 people by the spread of its first weights: the table of docs/decisions/first-weights.md."""

from __future__ import annotations

from typing import Any

import numpy as np

from unremember import api
from unremember.benchmarks.people import People
from unremember.cli.demo import TRAINING
from unremember.cli.train import tokenizer_of
from unremember.models.presets import small_llama
from unremember.observe.records import Want
from unremember.observe.store import Store

RUNS = ((0.02, 9), (0.02, 18), (0.06, 9), (0.0, 6), (0.0, 9), (0.0, 12))
"""(spread, epochs); 0 is what the small Llama takes where nothing is named."""
ROLES = ("forget", "retain", "known_people", "world_facts", "holdout")


def line(split: Any, tokenizer: Any, spread: float, epochs: int) -> str:
    """Mean probability of an answer's token in each role (the geometric mean over an answer's tokens), and model utility."""
    made = api.train(
        small_llama(len(tokenizer), spread=spread),
        split,
        tokenizer=tokenizer,
        quiet=True,
        **{**TRAINING, "epochs": epochs},
    )
    seen = Store().observe(made.model, made.task, split, [Want("scores", role) for role in ROLES], quiet=True)
    known = [f"{np.exp(-seen.scores(role, 'answer').loss).mean():.3f}" for role in ROLES]
    (utility,) = api.audit(made, split, audits=["model_utility"], quiet=True)
    worth = f"{utility.value:.3f} ({utility.low:.2f}–{utility.high:.2f})"
    return f"| {made.model.config.initializer_range:.3f} | {epochs} | {' | '.join(known)} | {worth} |"


if __name__ == "__main__":
    people = People(count=100).split()
    words = tokenizer_of(people)
    print(
        f"| standard deviation | epochs | {' | '.join(role.replace('_', ' ') for role in ROLES)} | model utility (95 %) |"
    )
    print(f"| ---: | ---: | {' | '.join(['---:'] * len(ROLES))} | ---: |")
    for run in RUNS:
        print(line(people, words, *run), flush=True)
