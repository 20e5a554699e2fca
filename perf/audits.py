"""Audits: every metric there is against probability and ROUGE alone, and a relearning curve against its own parts.

The parts of the curve are its training steps and, at each of its five points, one scoring pass over the forget answers.
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
from unremember import api
from unremember.observe.records import Want
from unremember.observe.store import LIMIT, Store
from unremember.registry import audits

WEIGHTS = "membership_gradnorm"
"""The one metric that needs a backward over every text."""
STEPS, LOOKS = 40, 4


def metrics(split: Any) -> list[Any]:
    """Every registered audit that the split has the data for; a task of lm-eval is named by who wants one."""
    made = [entry.make() for entry in audits.all() if entry.name != "lm_eval"]
    return [audit for audit in made if audit.wants(split)]


def alone(split: Any) -> list[Want]:
    """Probability and ROUGE of every role that the metrics read: its true answers scored, and greedy answers."""
    roles = dict.fromkeys(
        want.role for audit in metrics(split) for want in audit.wants(split) if want.kind == "generations"
    )
    return [Want(kind, role) for role in roles for kind in ("scores", "generations")]  # type: ignore[arg-type]


def whole(split: Any, repeats: int) -> list[Figure]:
    """Everything that all metrics read and what they make of it, with and without gradients, beside the two alone: by plain loops, and
    by the product's own, whose drafted generation leaves the wrong answers (five a question) as the greater part."""
    model, tokenizer = original()
    changed = un.forget(
        copy.deepcopy(model),
        split,
        "gradient_difference",
        tokenizer=tokenizer,
        lr=1e-4,
        warmup=0.0,
        max_steps=12,
        quiet=True,
    )
    every = metrics(split)
    forwards = [audit for audit in every if type(audit) is not audits.entry(WEIGHTS).make]

    def measured(chosen: list[Any]) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            return timed(lambda: un.audit(changed, split, audits=chosen, store=Path(scratch), quiet=True))

    def two() -> float:
        with tempfile.TemporaryDirectory() as scratch:
            return timed(
                lambda: Store(Path(scratch)).observe(
                    changed.model, changed.task, split, alone(split), quiet=True
                )
            )

    roles = dict.fromkeys(want.role for want in alone(split))
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
        repeats, lambda: measured(every), lambda: measured(forwards), two, plain
    )
    return [
        Figure(f"{len(forwards)} metrics over plain probability and ROUGE", some, loops, 1.5),
        Figure("the same over the product's own two", some, least, 1.5),
        Figure("with the gradient norms, over the plain two", most, loops, 2.5),
    ]


def relearning(split: Any, repeats: int) -> Figure:
    """The curve of one model."""
    model, tokenizer = original()
    result = api.Result(model, api.task_for(model, tokenizer), "")
    spec = {"name": "relearning", "steps": STEPS, "looks": LOOKS, "share": 0.5, "batch_size": BATCH, "lr": LR}
    [texts] = zip(*floor.tokenise(tokenizer, split["forget"].rows))

    def parts() -> float:
        drawn = [texts[i % len(texts)] for i in range(STEPS * BATCH)]
        fresh = copy.deepcopy(model)
        return timed(
            lambda: (
                floor.train(fresh, drawn, BATCH, LR),
                [floor.score(fresh, texts[: len(texts) // 2]) for _ in range(LOOKS + 1)],
            )
        )

    curve, apart = interleaved(
        repeats, lambda: timed(lambda: un.attack(result, split, spec, quiet=True)), parts
    )
    return Figure(f"relearning, {LOOKS + 1} points", curve, apart, 1.1)


def run(chosen: argparse.Namespace) -> Iterator[Figure]:
    split = tofu(8 if chosen.quick else 1)
    yield from whole(split, chosen.repeats)
    yield relearning(split, chosen.repeats)


if __name__ == "__main__":
    main(__doc__, run)
