"""KLUE: dropped rows, what moves, what it costs, and FaithUn's scores at equal forgetting."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from faithun import TEMPLATE, Graph, chances, distance, graph, net, picked, scores, word_tokenizer
from scipy.stats import spearmanr
from test_klue_neurons import CONFIGS, ROLES, context, ranked
from torch import Tensor

from unremember.data.split import Row, Split, make_split
from unremember.engine import loop
from unremember.engine.recipe import Recipe
from unremember.engine.samplings.unforgotten import Unforgotten
from unremember.engine.seams import Context, Term
from unremember.engine.selections.knowledge_neurons import MLP, KnowledgeNeurons
from unremember.engine.settings import Settings
from unremember.models import causal
from unremember.models.presets import fresh_model
from unremember.registry import methods
from unremember.tasks.language import LanguageTask

# --- unforgotten rows ---


def answering(table: dict[str, float], rows: Sequence[Row], reads: list[int] | None = None) -> Any:
    """A context whose model gives each answer a probability."""

    def mean_logprobs(asked: Sequence[Row]) -> np.ndarray:
        if reads is not None:
            reads.append(len(asked))
        return np.log([table[row["question"] + row["answer"]] for row in asked])

    split = make_split(
        {"forget": rows, "retain": [{"question": f"r{i}", "answer": "kept"} for i in range(7)]}
    )
    return SimpleNamespace(
        roles=ROLES,
        keys={role: split[role].keys for role in ROLES},
        batch_size=2,
        seed=3,
        split=split,
        probe=SimpleNamespace(mean_logprobs=mean_logprobs),
    )


def test_a_row_is_known_while_its_option_is_picked_or_its_answer_above_chance() -> None:
    wrong = {"a": ["y", "z"], "b": ["y"], "c": [], "d": [], "e": ["x"]}
    rows = [
        {"question": question, "answer": "x", "perturbed_answers": options}
        for question, options in wrong.items()
    ]
    table = {"ax": 0.02, "ay": 0.01, "az": 0.019, "bx": 0.9, "by": 0.91, "cx": 0.34, "dx": 0.33, "ex": 0.5}
    given = answering(table, rows)
    assert Unforgotten().still_answered(given, rows).tolist() == [True, False, True, False, False], (
        "a tie is no pick"
    )
    assert Unforgotten(chance=0.3).still_answered(given, rows).tolist() == [True, False, True, True, False]


def test_a_pass_draws_what_is_left_and_the_model_is_read_between_passes_alone() -> None:
    rows = [{"question": f"q{i}", "answer": "x"} for i in range(5)]
    table, reads = {f"q{i}x": 0.9 for i in range(5)}, []
    given, sampling = answering(table, rows, reads), Unforgotten()
    state, drawn = sampling.init(given), []
    for step in range(6):
        if step == 1:
            table |= {"q1x": 0.1, "q4x": 0.1}
        state = json.loads(json.dumps(sampling.refresh(given, state)))
        made, state = sampling.apply(given, state)
        drawn.append(made["forget"].rows.tolist())
        assert len(made["retain"].rows) == len(made["forget"].rows) and made["retain"].rows.max() < 7
    assert sorted(chain(*drawn[:3])) == [0, 1, 2, 3, 4] and sorted(chain(*drawn[3:5])) == [0, 2, 3], (
        "then only what is still known"
    )
    assert reads == [5, 5, 5] and not state["ended"]
    table |= dict.fromkeys(table, 0.1)
    while state["left"]:
        _, state = sampling.apply(given, state)
    assert sampling.refresh(given, state)["ended"]


# --- a run ---


@dataclasses.dataclass(frozen=True)
class World:
    """An original that knows the graph, the target scores of the oracle, and a way to forget."""

    graph: Graph
    tokenizer: Any
    task: LanguageTask
    original: Any
    oracle: Any

    def run(
        self, split: Split, questions: dict[str, list[Row]], method: Any, lr: float, **more: Any
    ) -> dict[str, float]:
        """Scores, steps and the least P(answer) at the first step with UA <= 1/3."""
        model, seen = copy.deepcopy(self.original), []

        def watch(now: Any, step: int) -> bool:
            seen.append(step)
            return bool(picked(now, self.tokenizer, questions["UA"]).mean() <= 1 / 3)

        recipe = dataclasses.replace(methods.make(method), **more)
        settings = Settings(epochs=100, batch_size=4, lr=lr, warmup=0, schedule="constant", weight_decay=0.0)
        loop.run_recipe(model, self.task, split, recipe, settings, watch=watch, every=1, quiet=True)
        least = float(chances(model, self.tokenizer, split["forget"].rows).min())
        return {**scores(model, self.tokenizer, questions), "steps": seen[-1], "least": least}


def learned(people: int, epochs: int, seed: int = 0) -> World:
    made = graph(people, seed)
    split = made.split()
    tokenizer = word_tokenizer(split["train"].rows)
    task = LanguageTask(tokenizer, TEMPLATE, 32)
    models = []
    for role in ("train", "without"):
        settings = Settings(epochs=epochs, batch_size=64, lr=5e-3, weight_decay=0.0)
        models.append(
            loop.run_recipe(
                net(len(tokenizer), seed), task, split, Recipe((Term(role, "nll"),)), settings, quiet=True
            )
        )
    return World(made, tokenizer, task, *models)


class Random(KnowledgeNeurons):
    """The control: as many neurons, chosen by lot."""

    def scores(self, context: Context, mlps: Sequence[MLP]) -> list[Tensor]:
        rng = torch.Generator().manual_seed(context.seed)
        return [torch.rand(mlp.width, generator=rng) for mlp in mlps]


RIVALS: dict[str, tuple[Any, float, dict[str, Any]]] = {
    "ga": ("gradient_ascent", 1e-3, {}),
    "gd": ("gradient_difference", 1e-3, {}),
    "klue": ({"name": "klue", "share": 0.1}, 5e-3, {}),
    "every row": ({"name": "klue", "share": 0.1}, 5e-3, {"sampling": "paired"}),
}
Table = dict[str, list[dict[str, float]]]


def compare(world: World, draws: int, rivals: dict[str, tuple[Any, float, dict[str, Any]]] = RIVALS) -> Table:
    """Every rival's figures on each draw of what is to be forgotten; the oracle is that of the first."""
    made = [graph(world.graph.people, world.graph.seed, draw) for draw in range(draws)]
    return {
        name: [world.run(g.split(), g.questions(), method, lr, **more) for g in made]
        for name, (method, lr, more) in rivals.items()
    }


def mean(table: Table, name: str, score: str) -> float:
    return float(np.mean([row[score] for row in table[name]]))


@pytest.fixture(scope="module")
def world() -> World:
    torch.set_num_threads(1)
    return learned(30, 35)


@pytest.fixture(scope="module")
def table(world: World) -> Table:
    return compare(world, 5)


def test_all_is_known_before_and_the_oracle_has_never_heard_of_it(world: World) -> None:
    questions = world.graph.questions()
    before, target = (scores(model, world.tokenizer, questions) for model in (world.original, world.oracle))
    assert min(before.values()) >= 0.95
    assert target["TA"] >= 0.95 and target["SA"] >= 0.95 and target["MA_t"] >= 0.95
    assert target["UA"] <= 0.5 and target["UA_ext"] <= 0.5 and target["MA_f"] <= 0.5


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_nothing_but_the_neurons_moves_under_adamw(architecture: str, world: World) -> None:
    """Bit for bit, with weight decay; and every selected neuron does move."""
    model = fresh_model(CONFIGS[architecture](), 3)
    model.resize_token_embeddings(len(world.tokenizer))
    split = world.graph.split()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    masks = KnowledgeNeurons(share=0.05).apply(context(copy.deepcopy(model), world.task, split, 4)).masks
    recipe = dataclasses.replace(methods.make({"name": "klue", "share": 0.05}), sampling="paired")
    loop.run_recipe(
        model,
        world.task,
        split,
        recipe,
        Settings(max_steps=4, batch_size=4, lr=1e-2, weight_decay=0.1),
        quiet=True,
    )
    after = dict(model.named_parameters())
    moved = {name: after[name].detach() != was for name, was in before.items()}
    assert {name for name, entries in moved.items() if entries.any()} == set(masks)
    for name, mask in masks.items():
        assert not moved[name][mask == 0].any() and moved[name][mask == 1].float().mean() > 0.9


def test_a_run_resumes_bit_for_bit(world: World, tmp_path: Path) -> None:
    split = world.graph.split()

    def run(folder: Path | None, stop: int = 0) -> Any:
        def watch(model: Any, step: int) -> None:
            if step == stop:
                raise KeyboardInterrupt

        recipe = methods.make({"name": "klue", "share": 0.1})
        settings = Settings(max_steps=9, batch_size=5, lr=2e-2, warmup=0)
        return loop.run_recipe(
            copy.deepcopy(world.original),
            world.task,
            split,
            recipe,
            settings,
            folder,
            watch,
            every=1,
            quiet=True,
        )

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop=5)
    whole, resumed = run(None).state_dict(), run(tmp_path).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def rows_in(inputs: dict[str, Any]) -> int:
    """Rows of a forward, packed into one or not."""
    return len(inputs.get("packed", inputs["input_ids"]))


def test_rows_that_pass_the_model(world: World) -> None:
    """Localisation: one forward and one backward a forget row, and as many as mismatched a distinct answer,
    and no gradient of a weight. Training: one forward and backward a drawn row. A pass of the sampling: one
    forward a row and option."""
    model, split = (
        copy.deepcopy(world.original),
        world.graph.split().with_rows(forget=world.graph.asked(world.graph.test)),
    )
    rows: dict[str, int] = {"forward": 0, "backward": 0}
    down = causal.decoder_blocks(model)[-1].mlp.down_proj
    latest = [0]

    def count(key: str) -> None:
        rows[key] += latest[0]

    model.model.register_forward_pre_hook(
        lambda _, args, inputs: latest.__setitem__(0, rows_in(inputs)), with_kwargs=True
    )
    down.register_forward_hook(lambda *_: count("forward"))
    down.register_full_backward_hook(lambda *_: count("backward"))
    given = context(model, world.task, split)
    KnowledgeNeurons(mismatched=5).apply(given)
    answers = {row["answer"] for row in split["forget"].rows}
    texts = len(split["forget"]) + 5 * len(answers)
    assert len(answers) < len(split["forget"]) and rows == {"forward": texts, "backward": texts}
    assert all(p.grad is None for p in model.parameters())
    rows |= {"forward": 0, "backward": 0}
    state = Unforgotten().refresh(given, Unforgotten().init(given))
    assert rows == {"forward": 3 * len(split["forget"]), "backward": 0} and len(state["left"]) == len(
        split["forget"]
    )
    rows |= {"forward": 0, "backward": 0}
    recipe = dataclasses.replace(
        methods.make("klue"), selection={"name": "layers", "modules": "mlp"}, sampling="paired"
    )
    loop.run_recipe(model, world.task, split, recipe, Settings(max_steps=2, batch_size=4), quiet=True)
    assert rows == {"forward": 2 * 2 * 4, "backward": 2 * 2 * 4}


def test_a_correction_that_is_common_to_an_answer_lowers_its_shared_neurons(world: World) -> None:
    """Neurons that carry an answer for other facts as well rank lower with the correction (Spearman), fact
    by fact."""
    model, split = copy.deepcopy(world.original), world.graph.split()
    same = world.graph.questions()["SA"]
    lower = 0
    answers = sorted({row["answer"] for row in same})
    for answer in answers:
        mine = [row for row in split["forget"].rows if row["answer"] == answer]
        shared = ranked(
            model,
            world.task,
            split.with_rows(forget=[row for row in same if row["answer"] == answer]),
            ["forget"],
        )
        plain, corrected = (
            ranked(model, world.task, split.with_rows(forget=mine), regularisation=alpha, mismatched=20)
            for alpha in (0.0, 1.0)
        )
        lower += spearmanr(shared, corrected).statistic < spearmanr(shared, plain).statistic
    assert lower >= 0.75 * len(answers)


def test_faithun_at_equal_forgetting(table: Table) -> None:
    """TA and SA are those of full gradient difference less 2 points or better, and paraphrases go along.

    Ascent that stops at chance keeps TA at .97 here, so the published 10 points over it have no room; and
    MA_f does not fall below that of gradient difference: the net learned each chain as a text of its own,
    and only broad damage reaches it."""
    assert all(row["UA"] <= 1 / 3 for rows in table.values() for row in rows)
    klue, gd, ga = (
        {score: mean(table, name, score) for score in table[name][0]} for name in ("klue", "gd", "ga")
    )
    assert (
        klue["TA"] >= gd["TA"] - 0.02 and klue["SA"] >= gd["SA"] - 0.02 and klue["MA_t"] >= gd["MA_t"] - 0.02
    )
    assert klue["TA"] >= ga["TA"] - 0.03 and klue["UA_ext"] <= min(gd["UA_ext"], ga["UA_ext"]) - 0.05
    assert klue["MA_f"] <= gd["MA_f"] + 0.15


def test_dropping_what_is_forgotten_spares_steps_and_the_rest(table: Table) -> None:
    assert mean(table, "klue", "steps") < mean(table, "every row", "steps")
    assert mean(table, "klue", "TA") >= mean(table, "every row", "TA") and mean(table, "klue", "SA") >= mean(
        table, "every row", "SA"
    )
    klue, every = (np.mean([np.log(row["least"]) for row in table[name]]) for name in ("klue", "every row"))
    assert klue > every + np.log(2), (
        "the most forgotten answer less so; yet some fall below 1e-4 between two passes"
    )


def test_klue_is_nearer_to_the_oracle_than_ascent_and_gradient_difference(world: World, table: Table) -> None:
    target = scores(world.oracle, world.tokenizer, world.graph.questions())
    far = {name: distance({score: mean(table, name, score) for score in target}, target) for name in table}
    assert far["klue"] < min(far["ga"], far["gd"])


def test_blocking_the_answers_fails_the_same_answer_questions(world: World) -> None:
    bias, questions = torch.zeros(len(world.tokenizer)), world.graph.questions()
    bias[world.tokenizer.convert_tokens_to_ids([row["answer"] for row in questions["UA"]])] = -1e4
    blocked = scores(world.original, world.tokenizer, questions, bias)
    assert blocked["UA"] <= 1 / 3 and blocked["SA"] <= 1 / 3


@pytest.mark.full
def test_faithun_at_full_size() -> None:
    """Sixty people, three worlds, ten draws, beside as many neurons chosen at random."""
    rivals = {**RIVALS, "random": (RIVALS["klue"][0], RIVALS["klue"][1], {"selection": Random(share=0.1)})}
    found: Table = {name: [] for name in rivals}
    for seed in range(3):
        for name, rows in compare(learned(60, 45, seed), 10, rivals).items():
            found[name] += rows
    for name in found:
        print(name, {score: round(mean(found, name, score), 4) for score in found[name][0]})
    assert (
        mean(found, "klue", "TA") >= mean(found, "gd", "TA") - 0.02
        and mean(found, "klue", "SA") >= mean(found, "gd", "SA") - 0.02
    )
    assert mean(found, "klue", "SA") >= mean(found, "random", "SA")
