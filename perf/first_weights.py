"""What a small model knows of the world of 100 people, by the spread of its first weights.

It prints the table of docs/decisions/first-weights.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unremember import api
from unremember.benchmarks.people import People
from unremember.models.presets import small_llama
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.store import Store
from unremember.runs.demo import DEMO_TRAINING
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.untrained import tokenizer_of_split

_RUNS = ((0.02, 9), (0.02, 18), (0.06, 9), (0.0, 6), (0.0, 9), (0.0, 12))
"""(spread, epochs); 0 is what the small Llama takes where nothing is named."""
_ROLES = ("forget", "retain", "known_people", "world_facts", "holdout")


def line(split: Any, tokenizer: Any, spread: float, epochs: int) -> str:
    """Return the mean probability per token of the answers in each role, and the model utility."""
    model = small_llama(len(tokenizer), spread=spread)
    start = Artefact(model, LanguageTask.of(model, tokenizer))
    learner = api.train(start, split, inplace=True, quiet=True, **{**DEMO_TRAINING, "epochs": epochs})
    requests = [TokenScores(role) for role in _ROLES]
    observations = Store().observe(learner, split, requests, quiet=True)
    known = [f"{np.exp(-observations[request].loss).mean():.3f}" for request in requests]
    (utility,) = api.audit(learner, split, audits=["model_utility"], quiet=True)
    worth = f"{utility.value:.3f} ({utility.low:.2f}–{utility.high:.2f})"
    return f"| {model.config.initializer_range:.3f} | {epochs} | {' | '.join(known)} | {worth} |"


if __name__ == "__main__":
    people = People(count=100).split()
    words = tokenizer_of_split(people)
    roles = " | ".join(role.replace("_", " ") for role in _ROLES)
    print(f"| standard deviation | epochs | {roles} | model utility (95 %) |")
    print(f"| ---: | ---: | {' | '.join(['---:'] * len(_ROLES))} | ---: |")
    for run in _RUNS:
        print(line(people, words, *run), flush=True)
