"""The job: five methods, evaluated before, after every epoch and at the end, over one observation store.

The floor does the same with plain loops, and evaluates a model that has not changed again. ``peer`` is what
the peer takes for it by its measured factors over the floor (training 2.0 x, scoring 3.4 x, generation 2.1
x).
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import floor
import unremember as un
from evaluate import floor_texts
from measure import Figure, main, original, timed, tofu
from train import BATCH, LR, METHODS, drawn
from unremember.observe.kinds.generations import LIMIT
from unremember.tasks.artefact import Artefact

_PEER = {"train": 2.0, "score": 3.4, "generate": 2.1}


def product(split: Any, epochs: int) -> float:
    """Return the seconds of the product's job."""
    start = original()

    def run_method(method: str, store: Path) -> None:
        def evaluate(model: Any, step: int = 0) -> None:
            un.audit(Artefact(model, start.task), split, store=store, quiet=True)

        evaluate(start.model)
        artefact = un.forget(
            start, split, method, epochs=epochs, batch_size=BATCH, lr=LR, quiet=True, watch=evaluate
        )
        evaluate(artefact.model)

    with tempfile.TemporaryDirectory() as store:
        return timed(lambda: [run_method(method, Path(store)) for method in METHODS])


def plain(split: Any, epochs: int) -> dict[str, float]:
    """Return the seconds of training, scoring and generation in the floor's job."""
    start = original()
    tokenizer = start.task.tokenizer
    texts, prompts = floor_texts(tokenizer, split)
    spent = dict.fromkeys(_PEER, 0.0)

    def evaluate(model: Any) -> None:
        spent["score"] += timed(lambda: floor.score(model, texts))
        spent["generate"] += timed(lambda: floor.generate(model, prompts, tokenizer.eos_token_id, LIMIT))

    for method in METHODS:
        learner = copy.deepcopy(start.model)
        evaluate(learner)
        rows = drawn(split, method, -(-len(split["forget"]) // BATCH))
        train = [text for some in rows.values() for [text] in floor.tokenise(tokenizer, some)]
        for _ in range(epochs):
            spent["train"] += timed(lambda: floor.train(learner, train, BATCH * len(rows), LR))  # noqa: B023
            evaluate(learner)
        evaluate(learner)
    return spent


def run(chosen: argparse.Namespace) -> list[Figure]:
    """Compare the product with the floor and with the peer."""
    split, epochs = tofu(32 if chosen.quick else 16), 2 if chosen.quick else 10
    ours, theirs = product(split, epochs), plain(split, epochs)
    peer = sum(_PEER[part] * seconds for part, seconds in theirs.items())
    return [
        Figure("the job against the floor", ours, sum(theirs.values()), 0.75),
        Figure("the job against the peer", ours, peer, 1 / 6),
    ]


if __name__ == "__main__":
    main(__doc__, run)
