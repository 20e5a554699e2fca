"""A worker of test_processes.py: runs every case, alone or as one of several processes, into a folder."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch import Tensor

from unremember import api, processes
from unremember.data.split import Split, make_split
from unremember.engine import loop
from unremember.engine.blends.weighted_sum import WeightedSum
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Selected, State, Term
from unremember.engine.sharded import Sharded, hold_weights
from unremember.engine.step import StepContext
from unremember.engine.weights import join_processes
from unremember.errors import ConfigError, DataError
from unremember.models.presets import small_llama
from unremember.observe import generating, scoring
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.gradient_norms import GradientNorms
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.store import Store
from unremember.registry import methods
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.tokenizers import train_tokenizer

WORDS = [
    "river",
    "harbour",
    "baker",
    "winter",
    "lamp",
    "salt",
    "bread",
    "north",
    "painter",
    "town",
    "quiet",
    "long",
]
NAMES = ["Ida", "Osk", "Velin"]
PAIR = (Term("forget", "npo"), Term("retain", "nll"))
LOOP = loop.run_stages
QUICK = {"epochs": 1, "batch_size": 5, "micro_tokens": 60, "lr": 2e-3, "warmup": 0, "max_steps": 2, "seed": 3}
STATISTICAL = ("random_labels",)
"""Draws labels by the number of forwards so far, of which a process has a share."""
SEAMS: dict[str, tuple[Any, Any]] = {
    "pcgrad-lora": ("pcgrad", {"name": "lora", "rank": 1}),
    "pcgrad-neurons": ("pcgrad", {"name": "knowledge_neurons", "share": 0.2}),
    "gu-null-layers": ({"name": "gu", "rule": "null"}, {"name": "layers", "layers": [1]}),
    "gu-paper": ({"name": "gu", "rule": "paper", "project": "gradient", "kappa_cap": 0.5}, "all"),
    "gu-finite-lora": ({"name": "gu", "finite_step": 1e-5}, {"name": "lora", "rank": 3}),
    "hamu-layer": ({"name": "hamu", "granularity": "layer"}, "all"),
    "hamu-neurons": ("hamu", {"name": "knowledge_neurons", "share": 0.2}),
    "ofmu-rho": ({"name": "ofmu", "inner_steps": 1}, {"name": "layers", "layers": [0]}),
}
SHARDED = (
    "npo",
    "kl",
    "rmu",
    "dpo",
    "wga",
    "flat",
    "scope_aware",
    "guard_attribution",
    "melu",
    "klue",
    "pdu",
    "gu",
    "whp",
    "task_vector-lora",
    *SEAMS,
)
"""What is run sharded: every way of reading a model, every sampling, blend and selection."""
WHOLE = ("kl", "rmu", "guard_attribution", "klue", "pcgrad-lora", "gu-finite-lora", "hamu-layer")
CUT = Recipe(PAIR, "gu")
"""The blend with the most to remember, for runs that are cut and go on with another number of processes."""


def rows(count: int, first: int, word: str) -> list[dict[str, Any]]:
    """Rows of unequal length, about somebody and near to somebody."""
    some = [" ".join(WORDS[(first + i + k) % 12] for k in range(1 + (i * 5) % 9)) for i in range(count)]
    return [
        {
            "question": f"{word} is {NAMES[i % 3]} of {first + i}?",
            "answer": text,
            "alternate": f"No idea {i}.",
            "entity": NAMES[i % 3],
            "neighbour": NAMES[i % 3] if i % 2 else "",
            "relation": ("direct", "indirect", "general")[i % 3],
            "perturbed_answers": [f"the {WORDS[i % 12]}", f"a {WORDS[(i + 3) % 12]} there"],
        }
        for i, text in enumerate(some)
    ]


def split() -> Split:
    return make_split({"forget": rows(9, 0, "Who"), "retain": rows(14, 100, "Where")})


def original() -> Artefact:
    """A tiny model in float64, whose vocabulary two processes cannot share evenly."""
    tokenizer = train_tokenizer(
        [f"{row['question']} {row['answer']}" for row in (*rows(9, 0, "Who"), *rows(14, 100, "Where"))], 301
    )
    model = small_llama(len(tokenizer), hidden=18, layers=2, heads=3, context=128).double().eval()
    return Artefact(model, LanguageTask.of(model, tokenizer))


@functools.cache
def reinforced() -> tempfile.TemporaryDirectory[str]:
    """The folder of a model that stands for one that learned the forget set further."""
    artefact, folder = original(), tempfile.TemporaryDirectory()
    with torch.no_grad():
        artefact.model.lm_head.weight.mul_(1.5)
    artefact.save(Path(folder.name) / "model")
    return folder


def recipes() -> dict[str, Any]:
    """Every method there is, and the seams that none of them picks."""
    by_name: dict[str, Any] = {
        entry.name: entry.name for entry in methods.all() if entry.name not in (*STATISTICAL, "retrain")
    }
    by_name["whp"] = {"name": "whp", "reinforced": reinforced().name}
    by_name["task_vector-lora"] = {"name": "task_vector", "selection": {"name": "lora", "rank": 3}}
    return by_name | {
        name: Recipe(PAIR, blend, selection=selection) for name, (blend, selection) in SEAMS.items()
    }


def run(method: Any, folder: Path | None = None, watch: Any = None, **settings: Any) -> Artefact:
    return api.forget(
        original(),
        split(),
        method,
        folder=folder,
        watch=watch,
        every=1,
        quiet=True,
        **{**QUICK, **settings},
    )


def outcome(done: Artefact, folder: Path, name: str) -> None:
    """Keep the weights, after seeing that all processes have the same."""
    digests = (
        set(gather_object([done.digest])) if processes.process_state().num_processes > 1 else {done.digest}
    )
    assert len(digests) == 1, f"{name}: the processes ended with different weights"
    if processes.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {
                key: value.contiguous()
                for key, value in copy.deepcopy(done.model).state_dict().items()
                if key != "lm_head.weight"
            },
            folder / f"{name}.safetensors",
        )


def cut(model: Any, step: int) -> None:
    if step == 2:
        raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True)
class Stopped(WeightedSum):
    """Ctrl-C reaches the last process alone, in the middle of its second step."""

    def apply(self, step: StepContext, state: State) -> tuple[list[Tensor], State]:
        steps = state.get("steps", 0)
        if steps == 1 and processes.process_state().is_last_process:
            os.kill(os.getpid(), signal.SIGINT)
        change, state = super().apply(step, state)
        return change, {**state, "steps": steps + 1}


def interrupted(recipe: Any, folder: Path, watch: Any = None, **settings: Any) -> bool:
    try:
        run(recipe, folder, watch, **settings)
    except KeyboardInterrupt:
        return True
    return False


def observed(folder: Path) -> None:
    """Every kind of observation, made twice from one store: the second time nothing is left to make."""
    artefact, store_folder = original(), folder / "store"
    with torch.no_grad():
        for p in artefact.model.parameters():
            p.mul_(5)  # so that it says something
    task, questions_split = artefact.task, make_split({"forget": rows(61, 0, "Who")})
    moments, wrong = TokenScores("forget", moments=True), TokenScores("forget", "perturbed_answers")
    requests = [moments, wrong, Generations("forget", 6), GradientNorms("forget")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generating, "_PROMPTS", 4)
        first, again = (
            Store(store_folder).observe(artefact, questions_split, requests, quiet=True) for _ in range(2)
        )
    outcomes = {"generations": list(first[requests[2]]), "norms": first[requests[3]].tolist()}
    outcomes |= {
        f"{request.text} {field}": getattr(first[request], field).tolist()
        for request in (moments, wrong)
        for field in ("logprobs", "matches", "rows")
    }
    outcomes |= {
        "moments": first[moments].moments.tolist(),
        "batches": len(scoring.batches(range_of(task, questions_split))),
    }
    assert list(again[requests[2]]) == outcomes["generations"]
    assert again[requests[3]].tolist() == outcomes["norms"]
    if processes.is_main_process():
        (folder / "observed.json").write_text(json.dumps(outcomes))


def range_of(task: Any, questions_split: Split) -> list[scoring.Question]:
    return scoring.build_questions(task.encode(questions_split, "forget", ["perturbed_answers"]))


def runs(folder: Path, names: Sequence[str]) -> None:
    """Each of the recipes, its outcome in ``folder``."""
    methods_by_name = recipes()
    for name in names:
        outcome(run(methods_by_name[name], folder / name), folder, name)


def worker(folder: Path, names: list[str]) -> None:
    """Run everything as one of several processes: whole, sharded, cut, interrupted, observed and refused."""
    torch.set_num_threads(1)
    runs(folder / "whole", WHOLE)
    observed(folder)
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    with pytest.MonkeyPatch.context() as patch:
        sharded: list[bool] = []

        def loop_noting_shards(stages: Any, *arguments: Any) -> None:
            sharded.append(isinstance(stages[0].weights, Sharded))
            LOOP(stages, *arguments)

        patch.setattr(loop, "run_stages", loop_noting_shards)
        runs(folder / "sharded", names)
    assert sharded == [True] * len(names), "the weights were really sharded"
    assert interrupted(CUT, folder / "cut", cut, max_steps=4)
    assert interrupted(Recipe(PAIR, Stopped()), folder / "stopped", max_steps=4)
    outcome(run(CUT, folder / "begun", max_steps=4), folder, "begun")
    outcome(run("npo", folder / "again" / "npo", gradient_checkpointing=True), folder / "again", "npo")
    with pytest.raises(DataError, match="started with different models"):
        run("npo", lr=1e-3 * (1 + processes.process_state().process_index))
    normed = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match="batch normalisation"):
        hold_weights(join_processes(normed), normed, Selected(dict(normed.named_parameters()), None))


if __name__ == "__main__":
    worker(Path(sys.argv[1]), sys.argv[2].split(","))
