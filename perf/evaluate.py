"""Evaluation: the default TOFU suite against plain scoring and plain generation, on healthy and on damaged models.

Both sides start from tokenised texts.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import floor
import unremember as un
from measure import Figure, interleaved, main, original, timed, tofu
from unremember import api
from unremember.audits import controls
from unremember.models.presets import fresh_model
from unremember.observe.records import Want
from unremember.observe.store import LIMIT, Store


def wanted(split: Any) -> list[Want]:
    """What the default audits read."""
    return list(
        dict.fromkeys(want for audit in controls.default_audits(split) for want in audit.wants(split))
    )


def models(split: Any, quick: bool) -> dict[str, Any]:
    """The original, a half-forgotten, an ascended and a random model, by name."""
    model, tokenizer = original()
    steps = {"half-forgotten": ("gradient_difference", 1e-4), "ascended": ("gradient_ascent", 2e-3)}
    made = {
        name: un.forget(
            copy.deepcopy(model),
            split,
            method,
            tokenizer=tokenizer,
            lr=lr,
            warmup=0.0,
            max_steps=2 if quick else 12,
            quiet=True,
        ).model
        for name, (method, lr) in steps.items()
    }
    return {"original": model, **made, "random": fresh_model(model.config, 0).eval()}


def compare(name: str, model: Any, tokenizer: Any, split: Any, repeats: int) -> list[Figure]:
    """Seconds and equality of product and floor on one model."""
    wants = wanted(split)
    scores, speaks = ([w for w in wants if w.kind == kind] for kind in ("scores", "generations"))
    texts = [
        text for w in scores for row in floor.tokenise(tokenizer, split[w.role].rows, w.text) for text in row
    ]
    prompts = [
        ids[:start] for w in speaks for [(ids, start)] in floor.tokenise(tokenizer, split[w.role].rows)
    ]
    found: dict[str, Any] = {}

    def product_scores() -> float:
        found["store"] = Store(Path(tempfile.mkdtemp(dir=scratch)))
        found["task"] = api.task_for(model, tokenizer)
        for want in wants:
            found["task"].encode(split, want.role, [want.text])
        return timed(
            lambda: found.update(seen=found["store"].observe(model, found["task"], split, scores, quiet=True))
        )

    def product_says() -> float:
        return timed(
            lambda: found.update(seen=found["store"].observe(model, found["task"], split, wants, quiet=True))
        )

    def floor_scores() -> float:
        return timed(lambda: found.update(plain=floor.score(model, texts)[0]))

    def floor_says() -> float:
        return timed(lambda: found.update(said=floor.generate(model, prompts, tokenizer.eos_token_id, LIMIT)))

    with tempfile.TemporaryDirectory() as scratch:
        seconds = interleaved(repeats, product_scores, floor_scores, product_says, floor_says)
    ours = np.exp(-np.concatenate([found["seen"].scores(w.role, w.text).loss for w in scores]))
    plain = np.array([values.double().mean().exp().item() for values in found["plain"]])
    said = [text for w in speaks for text in found["seen"].generations(w.role)]
    plainly = [text.strip() for text in tokenizer.batch_decode(found["said"], skip_special_tokens=True)]
    differ = sum(a != b for a, b in zip(said, plainly, strict=True)) / len(said)
    return [
        Figure(f"scoring, {name}", seconds[0], seconds[1], 0.75),
        Figure(f"generation, {name}", seconds[2], seconds[3], 0.5 if name == "original" else 1.1),
        Figure(
            f"largest difference of a probability, {name}", float(np.abs(ours - plain).max()), None, 1e-4, ""
        ),
        Figure(
            f"difference of the mean probability, {name}",
            abs(float(ours.mean() - plain.mean())),
            None,
            1e-3,
            "",
        ),
        Figure(f"share of generations that differ, {name}", differ, None, 0.005, ""),
    ]


def run(chosen: argparse.Namespace) -> Iterator[Figure]:
    split, tokenizer = tofu(8 if chosen.quick else 1), original()[1]
    compare("warming up", original()[0], tokenizer, tofu(100), 1)
    for name, model in models(split, chosen.quick).items():
        yield from compare(name, model, tokenizer, split, chosen.repeats)


if __name__ == "__main__":
    main(__doc__, run)
