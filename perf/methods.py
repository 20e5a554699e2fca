"""A step of every method over gradient difference's, beside the cost of its forwards and backwards."""

from __future__ import annotations

import argparse
import re
import time
from itertools import pairwise
from typing import Any

import torch

import floor
import unremember as un
from measure import Figure, data_folder, interleaved, main, original, timed, tofu
from unremember.registry import Entry, methods

BASE = "gradient_difference"
SLACK = 1.15


def work(entry: Entry, output: float) -> float:
    """Return a step's forwards and backwards as its registration states them.

    A backward counts as two forwards, the output layer as ``output``.
    """
    assert entry.price, entry.name
    forwards, backwards = entry.price
    layers = re.search(r"(?:(\d+)|the original's) output layer", entry.facts["cost"])
    return forwards + 2 * backwards + output * (int(layers[1] or 1) if layers else 0)


def output_share() -> float:
    """Return the output layer's share of a forward over the forget set: it sees the answers alone."""
    start = original()
    model, tokenizer = start.model, start.task.tokenizer
    texts = [text for row in floor.tokenise(tokenizer, tofu()["forget"].rows) for text in row]
    tokens, prompts = sum(len(ids) for ids, _ in texts), sum(prompt for _, prompt in texts)
    layer = model.get_output_embeddings().weight.numel()
    blocks = sum(p.numel() for p in model.model.layers.parameters())
    return layer * (tokens - prompts) / (layer * (tokens - prompts) + blocks * tokens)


def related() -> Any:
    """Return TOFU as if its forget rows were people of eight rows each, with neighbours in the retain set."""
    split = tofu()
    forget = [{**row, "entity": f"person {i // 8}"} for i, row in enumerate(split["forget"].rows[:128])]
    retain = [
        {**row, "relation": "direct", "neighbour": f"person {i % 16}"}
        for i, row in enumerate(split["retain"].rows)
    ]
    return split.with_rows(forget=forget, retain=retain)


def a_step(method: str, steps: int, start: Any = None) -> float:
    """Return the least seconds of a step after the first, from the original or from the artefact ``start``.

    What a sampling reads of the model from time to time is not in it.
    """
    split = related()
    named = (
        {"name": "whp", "reinforced": str(data_folder() / "tofu-tiny-llama-retain90")}
        if method == "whp"
        else method
    )
    stamps: list[float] = []
    un.forget(
        start or original(),
        split,
        named,
        inplace=True,
        max_steps=steps,
        batch_size=32,
        lr=1e-6,
        quiet=True,
        watch=lambda *_: stamps.append(time.perf_counter()),
        every=1,
    )
    return min(b - a for a, b in pairwise(stamps))


def optimiser() -> float:
    """The least seconds of clipping and an AdamW step: once a step, however many forwards it has."""
    model = original().model
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-6)
    for p in model.parameters():
        p.grad = torch.ones_like(p)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()

    return min(timed(step) for _ in range(8))


def run(chosen: argparse.Namespace) -> list[Figure]:
    steps = 4 if chosen.quick else 8
    entries = [entry for entry in methods.all() if entry.name != "retrain"]
    a_step(BASE, 2)  # warms the libraries up
    seconds = dict(
        zip(
            [e.name for e in entries],
            interleaved(chosen.repeats, *[lambda e=e: a_step(e.name, steps) for e in entries]),
        )
    )
    output = output_share()
    base, once = work(methods.entry(BASE), output), optimiser() / seconds[BASE]
    allowed = {e.name: SLACK * (once + (1 - once) * work(e, output) / base) for e in entries}
    return [
        Figure(f"a step of {e.name} over {BASE}", seconds[e.name], seconds[BASE], allowed[e.name])
        for e in entries
    ]


if __name__ == "__main__":
    main(__doc__, run)
