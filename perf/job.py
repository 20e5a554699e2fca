"""The job: five methods, evaluated before, after every epoch and after, over one observation store.

The floor does the same with plain loops, a model that has not changed included; ``peer`` is what the peer takes for it
by its measured factors over the floor (training 2.0 x, scoring 3.4 x, generation 2.1 x).
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import floor
import unremember as un
from measure import Figure, main, original, timed, tofu
from train import BATCH, LR, METHODS, drawn
from unremember import api
from unremember.observe.store import LIMIT

PEER = {"train": 2.0, "score": 3.4, "generate": 2.1}


def product(split: Any, epochs: int) -> float:
    model, tokenizer = original()
    task = api.task_for(model, tokenizer)

    def method_run(method: str, store: Path) -> None:
        fresh = copy.deepcopy(model)
        look = lambda now: un.audit(api.Result(now, task, ""), split, store=store, quiet=True)  # noqa: E731
        look(fresh)
        result = un.forget(
            fresh,
            split,
            method,
            tokenizer=tokenizer,
            epochs=epochs,
            batch_size=BATCH,
            lr=LR,
            quiet=True,
            watch=lambda now, _epoch: look(now),
        )
        look(result.model)

    with tempfile.TemporaryDirectory() as store:
        return timed(lambda: [method_run(method, Path(store)) for method in METHODS])


def plain(split: Any, epochs: int) -> dict[str, float]:
    """Seconds of training, scoring and generation in the floor's job."""
    from evaluate import wanted

    model, tokenizer = original()
    wants = wanted(split)
    texts = [
        text
        for w in wants
        if w.kind == "scores"
        for row in floor.tokenise(tokenizer, split[w.role].rows, w.text)
        for text in row
    ]
    prompts = [
        ids[:start]
        for w in wants
        if w.kind == "generations"
        for [(ids, start)] in floor.tokenise(tokenizer, split[w.role].rows)
    ]
    spent = dict.fromkeys(PEER, 0.0)

    def look(now: Any) -> None:
        spent["score"] += timed(lambda: floor.score(now, texts))
        spent["generate"] += timed(lambda: floor.generate(now, prompts, tokenizer.eos_token_id, LIMIT))

    for method in METHODS:
        fresh = copy.deepcopy(model)
        look(fresh)
        rows = drawn(split, method, -(-len(split["forget"]) // BATCH))
        train = [text for some in rows.values() for [text] in floor.tokenise(tokenizer, some)]
        for _ in range(epochs):
            spent["train"] += timed(lambda: floor.train(fresh, train, BATCH * len(rows), LR))  # noqa: B023
            look(fresh)
        look(fresh)
    return spent


def run(chosen: argparse.Namespace) -> list[Figure]:
    split, epochs = tofu(32 if chosen.quick else 16), 2 if chosen.quick else 10
    ours, theirs = product(split, epochs), plain(split, epochs)
    peer = sum(PEER[part] * seconds for part, seconds in theirs.items())
    return [
        Figure("the job against the floor", ours, sum(theirs.values()), 0.75),
        Figure("the job against the peer", ours, peer, 1 / 6),
    ]


if __name__ == "__main__":
    main(__doc__, run)
