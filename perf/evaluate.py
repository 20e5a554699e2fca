"""Evaluation: the default TOFU suite against plain scoring and generation, on healthy and on damaged models.

Both sides start from tokenised texts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import floor
import unremember as un
from measure import Figure, interleaved, main, original, timed, tofu
from unremember.audits.controls import default_audits, requests_of
from unremember.models.presets import fresh_model
from unremember.observe.kinds.generations import LIMIT, Generations
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask


def default_requests(split: Any) -> tuple[list[TokenScores], list[Generations]]:
    """Return what the default audits request: scores, and generations."""
    requests = requests_of(default_audits(split), split)
    scores = [request for request in requests if isinstance(request, TokenScores)]
    return scores, [request for request in requests if isinstance(request, Generations)]


def floor_texts(tokenizer: Any, split: Any) -> tuple[list[floor.Text], list[list[int]]]:
    """Return the texts that the floor scores, and the prompts that it continues."""
    scores, speaks = default_requests(split)
    texts = [
        text
        for request in scores
        for row in floor.tokenise(tokenizer, split[request.role].rows, request.text)
        for text in row
    ]
    prompts = [
        ids[:start]
        for request in speaks
        for [(ids, start)] in floor.tokenise(tokenizer, split[request.role].rows)
    ]
    return texts, prompts


def models(split: Any, quick: bool) -> dict[str, Any]:
    """Return the original, a half-forgotten, an ascended and a random model, by name."""
    start = original()
    steps = {"half-forgotten": ("gradient_difference", 1e-4), "ascended": ("gradient_ascent", 2e-3)}
    changed = {
        name: un.forget(
            start, split, method, lr=lr, warmup=0.0, max_steps=2 if quick else 12, quiet=True
        ).model
        for name, (method, lr) in steps.items()
    }
    return {"original": start.model, **changed, "random": fresh_model(start.model.config, 0).eval()}


def compare(name: str, model: Any, tokenizer: Any, split: Any, repeats: int) -> list[Figure]:
    """Compare seconds and results of product and floor on one model."""
    scores, speaks = default_requests(split)
    texts, prompts = floor_texts(tokenizer, split)
    results: dict[str, Any] = {}

    def product_scores() -> float:
        artefact = Artefact(model, LanguageTask.of(model, tokenizer))
        results.update(store=Store(Path(tempfile.mkdtemp(dir=scratch))), artefact=artefact)
        for request in (*scores, *(TokenScores(request.role) for request in speaks)):
            artefact.task.encode(split, request.role, [request.text])
        return timed(
            lambda: results.update(seen=results["store"].observe(artefact, split, scores, quiet=True))
        )

    def product_says() -> float:
        requests = [*scores, *speaks]
        return timed(
            lambda: results.update(
                seen=results["store"].observe(results["artefact"], split, requests, quiet=True)
            )
        )

    def floor_scores() -> float:
        return timed(lambda: results.update(plain=floor.score(model, texts)[0]))

    def floor_says() -> float:
        return timed(
            lambda: results.update(ids=floor.generate(model, prompts, tokenizer.eos_token_id, LIMIT))
        )

    with tempfile.TemporaryDirectory() as scratch:
        seconds = interleaved(repeats, product_scores, floor_scores, product_says, floor_says)
    observations = results["seen"]
    ours = np.exp(-np.concatenate([observations[request].loss for request in scores]))
    plain = np.array([values.double().mean().exp().item() for values in results["plain"]])
    answers = [text for request in speaks for text in observations[request]]
    plain_answers = [
        text.strip() for text in tokenizer.batch_decode(results["ids"], skip_special_tokens=True)
    ]
    differ = sum(a != b for a, b in zip(answers, plain_answers, strict=True)) / len(answers)
    largest, of_means = float(np.abs(ours - plain).max()), abs(float(ours.mean() - plain.mean()))
    return [
        Figure(f"scoring, {name}", seconds[0], seconds[1], 0.75),
        Figure(f"generation, {name}", seconds[2], seconds[3], 0.5 if name == "original" else 1.1),
        Figure(f"largest difference of a probability, {name}", largest, None, 1e-4, ""),
        Figure(f"difference of the mean probability, {name}", of_means, None, 1e-3, ""),
        Figure(f"share of generations that differ, {name}", differ, None, 0.005, ""),
    ]


def run(chosen: argparse.Namespace) -> Iterator[Figure]:
    """Compare on every model."""
    split, start = tofu(8 if chosen.quick else 1), original()
    tokenizer = start.task.tokenizer
    compare("warming up", start.model, tokenizer, tofu(100), 1)
    for name, model in models(split, chosen.quick).items():
        yield from compare(name, model, tokenizer, split, chosen.repeats)


if __name__ == "__main__":
    main(__doc__, run)
