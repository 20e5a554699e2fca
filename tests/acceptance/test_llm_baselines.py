"""The standard baselines on 64 answers that were learned by heart: what each does to the forget and the
retain set."""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from unremember.data.split import Split, make_split
from unremember.engine import loop
from unremember.engine.losses import ALTERNATE, ANSWER, LABELS, LOGITS
from unremember.engine.losses.whp import generic_logits
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.engine.settings import Run, Settings
from unremember.models.load import save_model
from unremember.models.presets import fresh_model
from unremember.registry import methods
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask, TextView
from unremember.tasks.protocol import Need
from unremember.tasks.text import Template
from unremember.tasks.tokenizers import train_tokenizer
from unremember.worlds.words import FIRST_NAMES, LAST_NAMES

FORGOTTEN, ALL = 8, 64
WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "indigo",
    "jade",
    "kelp",
    "lotus",
    "maple",
    "nectar",
    "onyx",
    "pearl",
]


@functools.cache
def answers() -> Split:
    """64 people, each with three words that nothing but memory can tell."""
    rng = np.random.default_rng(0)
    rows = [
        {"question": f"What are the words of {first} {last}?", "answer": " ".join(rng.choice(WORDS, 3)) + "."}
        for first, last in zip(FIRST_NAMES[:ALL], LAST_NAMES[:ALL])
    ]
    return make_split({"forget": rows[:FORGOTTEN], "retain": rows[FORGOTTEN:], "train": rows})


@functools.cache
def learned() -> tuple[LanguageTask, Any]:
    """A two-block Llama of width 64 that says all answers, and its task. Copy the model."""
    tokenizer = train_tokenizer(
        [f"{row['question']}\n{row['answer']}" for row in answers()["train"].rows for _ in range(2)], 600
    )
    task = LanguageTask(tokenizer, Template("{question}\n"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=170,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    settings = Settings(epochs=999, max_steps=300, batch_size=32, lr=3e-3, weight_decay=0.0, warmup=0)
    return task, loop.run_recipe(
        fresh_model(config, 0), task, answers(), Recipe((Term("train", "nll"),)), settings, quiet=True
    )


def seen(model: Any, role: str, *needs: Need, split: Split | None = None) -> TextView:
    """What the model says of all rows of a role."""
    task, split = learned()[0], split or answers()
    texts = task.encode(split, role, sorted({need.text for need in needs}))
    with torch.no_grad():
        return task.forward(model, {role: (texts, np.arange(len(split[role])))}, {role: needs})[role]


def loss(model: Any, role: str) -> float:
    """Mean cross-entropy of a token of a role's answers, in nats."""
    return -float(seen(model, role, ANSWER).read(ANSWER).values.mean())


def refusal(model: Any, split: Split) -> float:
    """Mean cross-entropy of a token of the forget rows' refusals."""
    return -float(seen(model, "forget", ALTERNATE, split=split).read(ALTERNATE).values.mean())


def forget(method: Any, steps: int = 100, lr: float = 3e-4, until: float | None = None) -> Any:
    """The model after ``steps`` steps of 8 rows or, at the latest, when the forget loss is ``until`` nats."""
    task, model = learned()
    settings = Settings(
        epochs=999, max_steps=steps, batch_size=8, lr=lr, schedule="constant", warmup=0, weight_decay=0.0
    )

    def enough(model: Any, step: int) -> bool:
        return until is not None and loss(model, "forget") >= until

    run = Run(settings, watch=enough, every=1, quiet=True)
    return methods.make(method).run(Artefact(copy.deepcopy(model), task), answers(), run).model


def test_the_original_knows_all_answers() -> None:
    assert loss(learned()[1], "forget") < 0.05 and loss(learned()[1], "retain") < 0.05


def test_ascent_has_no_end() -> None:
    done = forget("gradient_ascent", 40, 1e-3)
    assert loss(done, "forget") > 10 and loss(done, "retain") > 10


PDU = {"name": "pdu", "eps": 0.1, "warmup": 0}


@pytest.mark.parametrize("method", ["npo", "wga", "random_labels", PDU], ids=str)
def test_it_forgets_far_beyond_two_nats_and_keeps_the_rest(method: Any) -> None:
    done = forget(method)
    assert loss(done, "forget") > 3 and loss(done, "retain") < 0.3


@pytest.mark.parametrize(
    ("method", "most"),
    [
        ("simnpo", 0.1),
        ("satimp", 0.1),
        ("wga", 0.3),
        ("kl", 0.5),
    ],
    ids=str,
)
def test_at_two_nats_it_has_cost_less_than_ascent(method: Any, most: float) -> None:
    ascent, done = forget("gradient_ascent", until=2.0), forget(method, until=2.0)
    assert min(loss(ascent, "forget"), loss(done, "forget")) >= 2
    assert loss(done, "retain") < most < loss(ascent, "retain")


def test_undial_comes_to_rest_at_its_teacher() -> None:
    """The teacher is the original with the answer's logit 10 lower: the forget loss does not pass what it
    says."""
    found = seen(learned()[1], "forget", LOGITS, LABELS)
    labels = found.read(LABELS).values[:, None]
    lowered = found.read(LOGITS).values.scatter_add(-1, labels, torch.full(labels.shape, -10.0))
    teacher = -float(lowered.log_softmax(-1).gather(-1, labels).mean())
    found = [loss(forget("undial", steps, 1e-3), "forget") for steps in (40, 120)]
    print(f"undial: teacher {teacher:.2f}, after 40 and 120 steps {found[0]:.2f} and {found[1]:.2f}")
    assert all(2 < value < teacher + 0.5 for value in found)


@functools.cache
def reinforced() -> tuple[Any, tempfile.TemporaryDirectory[str]]:
    """A model that learned the forget answers further, and the folder it lies in."""
    task, model = learned()
    settings = Settings(
        epochs=999, max_steps=20, batch_size=8, lr=1e-3, schedule="constant", warmup=0, weight_decay=0.0
    )
    made = loop.run_recipe(
        copy.deepcopy(model), task, answers(), Recipe((Term("forget", "nll"),)), settings, quiet=True
    )
    folder = tempfile.TemporaryDirectory()
    save_model(made, task.tokenizer, Path(folder.name) / "model")
    return made, folder


def whp(alpha: float, folder: str = "") -> dict[str, Any]:
    return {"name": "whp", "reinforced": folder or reinforced()[1].name, "alpha": alpha}


def test_whp_comes_to_rest_at_the_generic_distribution() -> None:
    """And with nothing reinforced there is nothing to forget."""
    found, further = seen(learned()[1], "forget", LOGITS, LABELS), seen(reinforced()[0], "forget", LOGITS)
    wanted = generic_logits(found.read(LOGITS).values, further.read(LOGITS).values, 5.0)
    teacher = -float(wanted.log_softmax(-1).gather(-1, found.read(LABELS).values[:, None]).mean())
    done = forget(whp(0.0), 120, 1e-3)
    with tempfile.TemporaryDirectory() as folder:
        save_model(learned()[1], learned()[0].tokenizer, Path(folder) / "model")
        untaught = forget(whp(0.0, folder), 20, 1e-3)
    print(
        f"whp: teacher {teacher:.2f}, after 120 steps {loss(done, 'forget'):.2f}, "
        f"retain {loss(done, 'retain'):.2f}"
    )
    assert loss(done, "forget") == pytest.approx(teacher, abs=0.1) and teacher > 1
    assert loss(untaught, "forget") < 0.05 and loss(untaught, "retain") < 0.05


def test_whp_beside_a_retain_term_keeps_the_rest() -> None:
    done = forget(whp(1.0), 60, 1e-3)
    print(f"whp with a retain term: forget {loss(done, 'forget'):.2f}, retain {loss(done, 'retain'):.3f}")
    assert loss(done, "forget") > 1 and loss(done, "retain") < 0.1


def test_ceu_leaves_the_first_token_alone() -> None:
    def first(method: Any) -> float:
        values = seen(forget(method, 12), "forget", ANSWER).read(ANSWER)
        return -float(values.values[values.counts.cumsum(0) - values.counts].mean())

    assert first("ceu") < 0.1 < 0.5 < first({"name": "ceu", "skip": 0})
    assert loss(forget("ceu", 12), "forget") > 2


def test_a_leash_on_the_forget_set_holds() -> None:
    """KL to an original that is sure of the answer pulls as hard as ascent pushes: twice as heavy, nothing
    is forgotten."""
    held, left = (
        loss(forget({"name": "forget_kl", "alpha": alpha}, 40, 1e-3), "forget") for alpha in (2.0, 1.0)
    )
    print(f"forget_kl: forget {held:.2f} at twice the weight, {left:.2f} at equal weights")
    assert held < 0.1


def test_the_multiplier_bounds_the_retain_loss() -> None:
    held, left = forget(PDU, 40, 1e-3), forget({**PDU, "step": 0.0}, 40, 1e-3)
    assert loss(held, "retain") < 0.1 < loss(left, "retain") and loss(held, "forget") > 5


def test_refusals_are_learned_in_place_of_the_answers() -> None:
    split = methods.make("idk_nll").derive(answers())
    done = forget("idk_nll", 40, 1e-3)
    print(
        f"idk_nll: refusals {refusal(learned()[1], split):.2f} to {refusal(done, split):.2f}, "
        f"forget {loss(done, 'forget'):.2f}, "
        f"retain {loss(done, 'retain'):.3f}"
    )
    assert refusal(done, split) < refusal(learned()[1], split) / 2 and loss(
        done, "retain"
    ) < 0.1 < 0.5 < loss(done, "forget")


def test_answer_preservation_preserves() -> None:
    """Beside it the refusals of the forget set do not spread as far; the term is the whole difference."""
    held, left = forget("idk_ap", 40, 1e-3), forget({"name": "idk_ap", "alpha": 0.0}, 40, 1e-3)
    print(f"idk_ap: retain {loss(held, 'retain'):.2f}, without the term {loss(left, 'retain'):.2f}")
    assert loss(held, "retain") < loss(left, "retain") / 2 and loss(held, "forget") > 1


def test_negation_goes_the_other_way_from_the_original() -> None:
    _, model = learned()
    none, learner, done = (
        forget({"name": "task_vector", "scale": scale}, 40, 1e-3) for scale in (0.0, -1.0, 3.0)
    )
    names = model.state_dict()
    for scale, at in ((1.0, forget({"name": "task_vector"}, 40, 1e-3)), (3.0, done)):
        print(f"task vector × {scale}: forget {loss(at, 'forget'):.2f}, retain {loss(at, 'retain'):.2f}")
    adapter = forget({"name": "task_vector", "scale": 0.0, "selection": "lora"}, 4, 1e-2)
    assert adapter.state_dict().keys() == names.keys() and all(
        torch.equal(adapter.state_dict()[name], names[name]) for name in names
    )
    assert all(torch.equal(none.state_dict()[name], names[name]) for name in names)
    assert loss(learner, "forget") < loss(model, "forget")
    assert all(
        torch.allclose(done.state_dict()[n], names[n] - 3 * (learner.state_dict()[n] - names[n]), atol=1e-5)
        for n in names
    )
    assert loss(done, "forget") > loss(done, "retain") + 2


@pytest.mark.full
def test_figures_at_two_nats() -> None:
    """Prints the figures of the docs: what each method's retain loss is once the forget loss is 2 nats."""
    names = (
        "gradient_ascent",
        "gradient_difference",
        "npo",
        "simnpo",
        "kl",
        "wga",
        "satimp",
        "undial",
        "ceu",
        "random_labels",
        PDU,
    )
    reached = {}
    for method in names:
        done = forget(method, until=2.0)
        reached[str(method)] = loss(done, "forget")
        print(f"{method}: forget {loss(done, 'forget'):.2f}, retain {loss(done, 'retain'):.3f}", flush=True)
    assert min(reached.values()) >= 2, reached
