"""Audits: every metric against probability and ROUGE alone, and a relearning curve against its own parts.

The parts of the curve are its training steps and, at each of its five points, one scoring pass over the
forget answers.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import floor
import unremember as un
from measure import Figure, interleaved, main, original, timed, tofu
from train import BATCH, LR
from unremember.observe.kinds.generations import LIMIT, Generations
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.store import Store
from unremember.registry import audits

_WEIGHTS = "membership_gradnorm"
"""The one metric that needs a backward over every text."""
_STEPS, _POINTS = 40, 4


def metrics(split: Any) -> list[Any]:
    """Build every registered audit that the split has the data for, but for the tasks of lm-eval."""
    built = [entry.make() for entry in audits.all() if entry.name != "lm_eval"]
    return [audit for audit in built if audit.requests(split)]


def probability_and_rouge(split: Any) -> list[Any]:
    """Request true answers' scores and greedy answers for every role that the metrics generate for."""
    requests = [request for audit in metrics(split) for request in audit.requests(split)]
    roles = dict.fromkeys(request.role for request in requests if isinstance(request, Generations))
    return [kind(role) for role in roles for kind in (TokenScores, Generations)]


def whole(split: Any, repeats: int) -> list[Figure]:
    """Time all metrics, with and without gradients, beside the two alone: by plain loops, and by the product.

    The product drafts its generations, so that the wrong answers (five a question) are the greater part of
    its work.
    """
    start = original()
    changed = un.forget(start, split, "gradient_difference", lr=1e-4, warmup=0.0, max_steps=12, quiet=True)
    every = metrics(split)
    forwards = [audit for audit in every if type(audit) is not audits.entry(_WEIGHTS).make]
    requests = probability_and_rouge(split)

    def measure(chosen: list[Any]) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            return timed(lambda: un.audit(changed, split, audits=chosen, store=Path(scratch), quiet=True))

    def two() -> float:
        with tempfile.TemporaryDirectory() as scratch:
            return timed(lambda: Store(Path(scratch)).observe(changed, split, requests, quiet=True))

    tokenizer = start.task.tokenizer
    roles = dict.fromkeys(request.role for request in requests)
    texts = [text for role in roles for [text] in floor.tokenise(tokenizer, split[role].rows)]
    prompts = [ids[:start] for ids, start in texts]

    def plain() -> float:
        return timed(
            lambda: (
                floor.score(changed.model, texts),
                floor.generate(changed.model, prompts, tokenizer.eos_token_id, LIMIT),
            )
        )

    most, some, least, loops = interleaved(
        repeats, lambda: measure(every), lambda: measure(forwards), two, plain
    )
    return [
        Figure(f"{len(forwards)} metrics over plain probability and ROUGE", some, loops, 1.5),
        Figure("the same over the product's own two", some, least, 1.5),
        Figure("with the gradient norms, over the plain two", most, loops, 2.5),
    ]


def relearning(split: Any, repeats: int) -> Figure:
    """Time the relearning curve of one model."""
    artefact = original()
    model, tokenizer = artefact.model, artefact.task.tokenizer
    spec = {
        "name": "relearning",
        "steps": _STEPS,
        "points": _POINTS,
        "share": 0.5,
        "batch_size": BATCH,
        "lr": LR,
    }
    [texts] = zip(*floor.tokenise(tokenizer, split["forget"].rows))

    def parts() -> float:
        drawn = [texts[i % len(texts)] for i in range(_STEPS * BATCH)]
        learner = copy.deepcopy(model)
        return timed(
            lambda: (
                floor.train(learner, drawn, BATCH, LR),
                [floor.score(learner, texts[: len(texts) // 2]) for _ in range(_POINTS + 1)],
            )
        )

    curve, apart = interleaved(
        repeats, lambda: timed(lambda: un.attack(artefact, split, spec, quiet=True)), parts
    )
    return Figure(f"relearning, {_POINTS + 1} points", curve, apart, 1.1)


def run(chosen: argparse.Namespace) -> Iterator[Figure]:
    """Measure both."""
    split = tofu(8 if chosen.quick else 1)
    yield from whole(split, chosen.repeats)
    yield relearning(split, chosen.repeats)


if __name__ == "__main__":
    main(__doc__, run)
