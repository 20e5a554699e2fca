"""Training: 24 steps of five methods against fine-tuning on the same texts, and against each other.

The floor of a method that reads the original first reads it as well: one forward over each text that needs
it.
"""

from __future__ import annotations

import argparse
import copy
import time
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import floor
import unremember as un
from measure import Figure, interleaved, main, original, timed, tofu
from unremember.registry import methods, samplings

_READ = {"npo": "forget"}
"""The role whose answers a method reads of the original."""
METHODS = ("gradient_ascent", "gradient_difference", "npo", "simnpo", "rmu")
BATCH, LR = 32, 1e-5


def drawn(split: Any, method: str, steps: int) -> dict[str, list[Any]]:
    """The rows that the method's sampling draws in ``steps`` steps, by role."""
    (recipe,) = methods.make(method).recipes
    sampling = samplings.make(recipe.sampling)
    context = SimpleNamespace(
        roles=recipe.roles, keys={r: split[r].keys for r in recipe.roles}, batch_size=BATCH, seed=0
    )
    state, rows = sampling.init(context), {role: [] for role in recipe.roles}
    for _ in range(steps):
        step, state = sampling.apply(context, state)
        for role, draw in step.items():
            rows[role].extend(split[role].rows[i] for i in draw.rows)
    return rows


def run(chosen: argparse.Namespace) -> list[Figure]:
    steps = 3 if chosen.quick else 24
    split, start = tofu(8 if chosen.quick else 1), original()
    tokenizer = start.task.tokenizer
    a_step: dict[str, list[float]] = {method: [] for method in METHODS}

    def product(method: str) -> float:
        learner, stamps = start.copy(), []
        seconds = timed(
            lambda: un.forget(
                learner,
                split,
                method,
                inplace=True,
                max_steps=steps,
                batch_size=BATCH,
                lr=LR,
                quiet=True,
                watch=lambda _model, _epoch: stamps.append(time.perf_counter()),
            )
        )
        a_step[method].append((stamps[-1] - stamps[0]) / (steps - steps_in_first_epoch))
        return seconds

    def plain(read: list[floor.Text], texts: list[floor.Text], rows: int) -> float:
        learner = copy.deepcopy(start.model)
        return timed(lambda: (floor.score(learner, read), floor.train(learner, texts, rows, LR)))

    steps_in_first_epoch = -(-len(split["forget"]) // BATCH)
    works = []
    for method in METHODS:
        rows = drawn(split, method, steps)
        texts = {role: [text for [text] in floor.tokenise(tokenizer, some)] for role, some in rows.items()}
        works += [
            partial(product, method),
            partial(
                plain, texts.get(_READ.get(method, ""), []), list(chain(*texts.values())), BATCH * len(rows)
            ),
        ]
    seconds = interleaved(chosen.repeats, *works)
    figures = [
        Figure(f"train {method}", ours, theirs, 1.10)
        for method, ours, theirs in zip(METHODS, seconds[::2], seconds[1::2])
    ]
    step = {
        method: sorted(steps_seconds)[len(steps_seconds) // 2] for method, steps_seconds in a_step.items()
    }
    return [
        *figures,
        Figure("a step of npo over simnpo", step["npo"], step["simnpo"], 1.10),
        Figure("a step of rmu over gradient_difference", step["rmu"], step["gradient_difference"], 0.60),
    ]


if __name__ == "__main__":
    main(__doc__, run)
