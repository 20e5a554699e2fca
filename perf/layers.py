"""Reading the states after every block, over one plain forward of the same texts."""

from __future__ import annotations

import argparse

import torch

import floor
from measure import Figure, interleaved, main, original, timed, tofu
from unremember.models.causal import decoder_blocks
from unremember.observe.kinds.hidden_states import HiddenStates
from unremember.observe.store import Store


@torch.no_grad()
def forward(model: torch.nn.Module, texts: list[floor.Text]) -> None:
    """Run the texts through the model in length-sorted, right-padded batches, and keep nothing."""
    ordered = sorted(texts, key=lambda text: len(text[0]))
    for start in range(0, len(ordered), floor.ROWS):
        tokens, _ = floor.padded(ordered[start : start + floor.ROWS])
        model.model(input_ids=tokens, use_cache=False)


def run(chosen: argparse.Namespace) -> list[Figure]:
    split, artefact = tofu(8 if chosen.quick else 1), original()
    requests = [
        HiddenStates("forget", layers=(layer,), position="answer")
        for layer in range(len(decoder_blocks(artefact.model)))
    ]
    texts = [text for row in floor.tokenise(artefact.task.tokenizer, split["forget"].rows) for text in row]
    artefact.task.encode(split, "forget", ["answer"])  # both sides start from token ids
    seconds, plain = interleaved(
        max(5, chosen.repeats),
        lambda: timed(lambda: Store().observe(artefact, split, requests, quiet=True)),
        lambda: timed(lambda: forward(artefact.model, texts)),
    )
    return [Figure(f"states of {len(requests)} layers over one forward", seconds, plain, 1.1)]


if __name__ == "__main__":
    main(__doc__, run)
