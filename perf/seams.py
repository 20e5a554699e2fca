"""The cost of seams beside the forwards and backwards that they need.

That is: scores of rows and of neurons over a training epoch of as many texts, and the work of a blend over
the making of its gradients.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import floor
import unremember as un
from measure import Figure, data_folder, interleaved, main, original, timed, tofu
from methods import BASE, a_step
from train import BATCH, LR
from unremember.engine.seams import Context
from unremember.engine.selections.knowledge_neurons import MLP, KnowledgeNeurons
from unremember.engine.step import StepContext
from unremember.models import causal
from unremember.registry import blends, samplings
from unremember.tasks.artefact import load_artefact

_TEXTS = 1000
_BLENDS = ("pcgrad", "gu")
"""Blends that work on inner products of whole gradients."""


def scores(texts: int, repeats: int) -> list[Figure]:
    """Time the attribution of some rows, and neuron scores of as many texts.

    Eight of nine of those texts are questions with another row's answer.
    """
    start, split = original(), tofu()
    model, task = start.model, start.task
    pool, neurons = split["retain"].rows, KnowledgeNeurons()

    def context(rows: int) -> Context:
        some_rows = split.with_rows(forget=pool[:rows], retain=pool[texts:])
        return Context(
            model,
            task,
            some_rows,
            ("forget", "retain"),
            {role: some_rows[role].keys for role in ("forget", "retain")},
            BATCH,
            0,
        )

    def epoch() -> float:
        learner = copy.deepcopy(model)
        tokens = [text for [text] in floor.tokenise(task.tokenizer, pool[:texts])]
        return timed(lambda: floor.train(learner, tokens, BATCH, LR))

    attributed, read, trained = interleaved(
        repeats,
        lambda: timed(
            lambda: samplings.make({"name": "guard_attribution", "retain_sample": texts // 2}).scores(
                context(texts)
            )
        ),
        lambda: timed(
            lambda: neurons.scores(
                context(texts // (1 + neurons.mismatched)),
                [MLP.of(block) for block in causal.decoder_blocks(model)],
            )
        ),
        epoch,
    )
    return [
        Figure(f"attribution of {texts} rows over an epoch of them", attributed, trained, 3.0),
        Figure(f"neuron scores of {texts} texts over an epoch of as many", read, trained, 3.0),
    ]


def blend_over_backwards(name: str, steps: int) -> tuple[float, float]:
    """Return the seconds that a blend takes over some steps, and those of them that its gradients take."""
    split = tofu()
    spent = {"blend": 0.0, "gradients": 0.0}

    def clocked(owner: Any, function: str, under: str) -> None:
        inner = getattr(owner, function)

        def timing(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                spent[under] += time.perf_counter() - began

        setattr(owner, function, timing)

    class Clocked(type(blends.make(name))):  # type: ignore[misc]
        """The blend with a clock."""

    gradient = StepContext.gradient
    clocked(Clocked, "apply", "blend")
    clocked(Clocked, "correct", "blend")
    clocked(StepContext, "gradient", "gradients")
    try:
        un.forget(
            original(),
            split,
            BASE,
            blend=Clocked(),
            inplace=True,
            max_steps=steps,
            batch_size=BATCH,
            lr=LR,
            quiet=True,
        )
    finally:
        StepContext.gradient = gradient  # type: ignore[method-assign]
    return spent["blend"], spent["gradients"]


def run(chosen: argparse.Namespace) -> list[Figure]:
    figures = scores(_TEXTS // 8 if chosen.quick else _TEXTS, chosen.repeats)
    for name in _BLENDS:
        whole, gradients = blend_over_backwards(name, 4 if chosen.quick else 16)
        figures.append(Figure(f"the blend {name} over its gradients", whole, gradients, 1.05))
    unknowing = load_artefact(data_folder() / "tofu-tiny-llama-retain90")
    never, known = interleaved(
        chosen.repeats, lambda: a_step("satimp", 4, unknowing.copy()), lambda: a_step("satimp", 4)
    )
    return [
        *figures,
        Figure("a step of satimp where answers have no chance over one where they have", never, known, 1.15),
    ]


if __name__ == "__main__":
    main(__doc__, run)
