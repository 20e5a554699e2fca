"""One contract a kind of part: whatever registers itself is built, applied and checked here."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.metadata
import itertools
import json
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given import Given
from torch import Tensor

from unremember import api, registry
from unremember.data.ordering import epoch_order
from unremember.data.split import Split, make_split
from unremember.engine.optimizers import SGD, Milestones
from unremember.engine.seams import Context, Seams, Selected
from unremember.engine.settings import Run, Settings
from unremember.errors import ConfigError
from unremember.methods.protocol import Method
from unremember.registry import FIDELITIES, Entry, Registry, blends, losses, methods, samplings, selections
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask, TextView
from unremember.tasks.protocol import Need
from unremember.tasks.ragged import Ragged

KINDS = [losses, blends, samplings, selections, methods]
ENTRIES = [entry for kind in KINDS for entry in kind.all()]


def each(kind: Registry) -> Any:
    return pytest.mark.parametrize("entry", kind.all(), ids=kind.names())


def rows(count: int, word: str) -> list[dict[str, str]]:
    return [
        {
            "question": f"{word} is {i}?",
            "answer": "the long river " * (1 + i % 3),
            "alternate": f"No idea {i}.",
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split({"forget": rows(5, "Who"), "retain": rows(7, "Where"), "train": rows(7, "Where")})


@pytest.fixture
def context(model: Any, split: Split, tokenizer: Any) -> Context:
    roles = ("forget", "retain")
    return Context(
        model, LanguageTask(tokenizer), split, roles, {role: split[role].keys for role in roles}, 4, 0
    )


# --- what an entry says of itself ---


def test_the_parts_that_were_promised_are_there() -> None:
    assert set(losses.names()) >= {"nll", "ascent", "npo", "simnpo", "dpo", "steer", "hold", "cross_entropy"}
    assert set(blends.names()) >= {"sum", "pcgrad"} and set(samplings.names()) >= {"paired", "cyclic"}
    assert set(selections.names()) >= {"all", "layers", "lora"}
    assert set(methods.names()) >= {
        "gradient_ascent",
        "gradient_difference",
        "npo",
        "simnpo",
        "dpo",
        "rmu",
        "retrain",
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_an_entry_is_complete(entry: Entry) -> None:
    assert entry.summary.endswith(".") and "\n" not in entry.summary and 10 < len(entry.summary) <= 150
    assert (
        isinstance(entry.paper, str)
        and re.fullmatch(r"(\d{4}\.\d{5})?", entry.arxiv)
        and bool(entry.paper) == bool(entry.arxiv)
    )
    assert isinstance(entry.needs, tuple) and all(need and isinstance(need, str) for need in entry.needs)
    assert entry.fidelity in FIDELITIES and re.fullmatch(r"[a-z][a-z0-9_]*", entry.name)
    assert json.loads(json.dumps(entry.row()))["name"] == entry.name
    assert all(default is not registry.inspect.Parameter.empty for default in entry.parameters().values()), (
        "builds with defaults"
    )


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e.kind != "methods"], ids=lambda entry: f"{entry.kind}-{entry.name}"
)
def test_a_part_is_a_frozen_dataclass(entry: Entry) -> None:
    part = entry.make()
    assert dataclasses.is_dataclass(part) and part == entry.make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.anything = 1


# --- losses ---

EXTREMES = [0.0, -1e-30, -1e-7, -50.0, -1e4, -1e30]
COUNTS = torch.tensor([1, 3, 2])


@dataclasses.dataclass(frozen=True)
class Labelled(TextView):
    """A view with class labels beside its quantities."""

    labels: Tensor


def view(needs: tuple[Need, ...], size: float, seed: int) -> Labelled:
    """Quantities of three examples whose largest absolute value is about ``size``."""
    rng = torch.Generator().manual_seed(seed)
    made: dict[Need, Any] = {}
    for need in needs:
        if need.text == "input":
            made[need] = (torch.randn(3, 4, generator=rng) * size).requires_grad_()
        elif need.what == "hidden":
            made[need] = Ragged(
                (torch.randn(6, 32, generator=rng) * min(size, 1e15)).requires_grad_(), COUNTS
            )
        elif need.what == "logits":
            made[need] = Ragged((torch.randn(6, 5, generator=rng) * min(size, 1e15)).requires_grad_(), COUNTS)
        elif need.what == "labels":
            made[need] = Ragged(torch.randint(5, (6,), generator=rng), COUNTS)
        else:
            made[need] = Ragged((-torch.rand(6, generator=rng) * size).requires_grad_(), COUNTS)
    return Labelled(made, torch.tensor([0, 2, 1]))


@each(losses)
def test_a_loss_declares_what_it_reads(entry: Entry) -> None:
    loss = entry.make()
    assert loss.needs and all(isinstance(need, Need) for need in (*loss.needs, *loss.reference_needs))
    assert {dataclasses.replace(need, of=None) for need in loss.reference_needs} <= set(
        loss.needs
    ) and loss.per in ("example", "token")
    assert ("original model" in entry.needs) == bool(loss.reference_needs)
    assert ("reinforced model" in entry.needs) == any(need.of is not None for need in loss.reference_needs)
    assert {need.text for need in loss.needs} <= set(entry.needs)


@each(losses)
@pytest.mark.parametrize("size", [-x for x in EXTREMES], ids=str)
def test_a_loss_gives_one_finite_value_an_example(entry: Entry, size: float, context: Context) -> None:
    loss = entry.make()
    state = loss.init(context)
    seen, old = view(loss.needs, size, 1), view(loss.reference_needs, size, 2)
    values, after = loss.apply(seen, old, state)
    assert values.shape == (3,) and values.is_floating_point() and torch.isfinite(values).all()
    values.sum().backward()
    leaves = [v.values if isinstance(v, Ragged) else v for v in seen.values.values()]
    assert all(
        leaf.grad is not None and torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.requires_grad
    )
    assert set(after) == set(state)
    again, _ = loss.apply(view(loss.needs, size, 1), view(loss.reference_needs, size, 2), loss.init(context))
    assert torch.equal(values, again)


@each(losses)
def test_a_loss_reads_nothing_it_did_not_declare(entry: Entry, context: Context) -> None:
    """And each example's value depends on that example alone."""
    loss = entry.make()
    state = loss.init(context)
    seen, old = view(loss.needs, 2.0, 1), view(loss.reference_needs, 2.0, 2)
    values, _ = loss.apply(seen, old, state)
    read = seen.read(loss.needs[0])
    (gradient,) = torch.autograd.grad(values[1], [read.values if isinstance(read, Ragged) else read])
    mine = slice(1, 4) if isinstance(read, Ragged) else slice(1, 2)
    assert gradient[mine].any() and not gradient[: mine.start].any() and not gradient[mine.stop :].any(), (
        "the second example has three rows"
    )


@pytest.mark.parametrize("name", ["npo", "simnpo", "dpo"])
@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_a_beta_that_is_no_temperature_is_refused(name: str, beta: float) -> None:
    with pytest.raises(ConfigError, match="beta"):
        losses.make({"name": name, "beta": beta})


# --- blends ---


def role_gradients(scale: float) -> dict[str, list[Tensor]]:
    rng = torch.Generator().manual_seed(0)
    return {
        role: [torch.randn(shape, generator=rng) * scale for shape in ((4, 3), (5,))]
        for role in ("forget", "retain", "world")
    }


@each(blends)
@pytest.mark.parametrize("scale", [0.0, 1e-15, 1.0, 1e15])
def test_a_blend_gives_one_finite_update(entry: Entry, scale: float, context: Context) -> None:
    blend, given = entry.make(), role_gradients(scale)
    assert isinstance(blend.raw, bool) and isinstance(blend.corrects, bool)
    state = blend.init(context)
    update, after = blend.apply(Given(given), state)
    assert [part.shape for part in update] == [(4, 3), (5,)] and all(
        torch.isfinite(part).all() for part in update
    )
    again, _ = blend.apply(Given(given), blend.init(context))
    assert (
        all(torch.equal(a, b) for a, b in zip(update, again))
        and set(after) == set(state)
        and state == blend.init(context)
    )
    assert all(
        torch.equal(a, b) for role, parts in role_gradients(scale).items() for a, b in zip(parts, given[role])
    ), "gradients are not changed"
    json.dumps({key: value for key, value in after.items() if not isinstance(value, Tensor)})


# --- samplings ---


@each(samplings)
def test_a_sampling_draws_rows_that_exist(entry: Entry, context: Context) -> None:
    sampling = entry.make()
    count, state = sampling.steps_per_epoch(context), sampling.init(context)
    assert isinstance(count, int) and count >= 2
    seen: set[int] = set()
    for _ in range(count):
        before = dict(state)
        step, after = sampling.apply(context, state)
        again, _ = sampling.apply(context, state)
        assert state == before and json.loads(json.dumps(after)) == after
        assert set(step) == {"forget", "retain"} and 1 <= len(step["forget"].rows) <= context.batch_size
        for role, draw in step.items():
            assert (
                draw.rows.shape == draw.weights.shape
                and draw.rows.dtype == np.int64
                and draw.weights.dtype == np.float32
            )
            assert draw.rows.min() >= 0 and draw.rows.max() < len(context.keys[role])
            assert np.array_equal(draw.rows, again[role].rows) and np.isfinite(draw.weights).all()
        seen |= set(step["forget"].rows.tolist())
        state = after
    assert seen == set(range(5)), "every anchor row in an epoch"


@each(samplings)
def test_a_sampling_takes_equal_rows_and_a_batch_beyond_the_data(entry: Entry, context: Context) -> None:
    twins = {role: np.full(3, 7, dtype=np.uint64) for role in ("forget", "retain")}
    step, _ = entry.make().apply(dataclasses.replace(context, keys=twins, batch_size=50), {"position": 0})
    assert (
        sorted(step["forget"].rows.tolist())
        == [0, 1, 2]
        == sorted(epoch_order(twins["forget"], 0, 0).tolist())
    )


# --- selections ---


@each(selections)
def test_a_selection_frees_what_it_names_and_nothing_else(entry: Entry, model: Any, context: Context) -> None:
    ids = torch.arange(2, 12)[None]
    before, keys = model(input_ids=ids).logits.detach(), list(model.state_dict())
    chosen = entry.make().apply(context)
    assert isinstance(chosen, Selected) and chosen.parameters
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(chosen.parameters)
    assert all(dict(model.named_parameters())[name] is p for name, p in chosen.parameters.items())
    assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-6), "choosing changes nothing yet"
    done = chosen.finish(model)
    assert list(done.state_dict()) == keys and type(done) is type(copy.deepcopy(model))
    assert torch.allclose(done(input_ids=ids).logits, before, atol=1e-6)


# --- methods ---


def artefact_of(model: Any, tokenizer: Any) -> Artefact:
    return Artefact(copy.deepcopy(model), LanguageTask(tokenizer))


def with_neighbours(split: Split) -> Split:
    """The same rows with the columns that melu reads."""
    return split.with_rows(
        forget=[{**row, "entity": f"e{i % 2}"} for i, row in enumerate(split["forget"].rows)],
        retain=[
            {**row, "neighbour": f"e{i % 2}", "relation": "direct"}
            for i, row in enumerate(split["retain"].rows)
        ],
    )


def built(name: str, reinforced: str, **parameters: Any) -> Method:
    """A registered method with some parameters; whp needs the folder of a second model."""
    second = {"reinforced": reinforced} if name == "whp" else {}
    return methods.make({"name": name, **second, **parameters})


def settings_of(**changes: Any) -> Settings:
    return Settings(**{"max_steps": 3, "batch_size": 3, "lr": 1e-3, **changes})


@each(methods)
def test_a_methods_recipes_resolve_in_every_registry(entry: Entry, split: Split) -> None:
    method = entry.make()
    assert method == entry.make() and isinstance(method.recipes, tuple)
    derived = method.derived(split)
    assert isinstance(derived, Split) and isinstance(entry.facts["cost"], str)
    for recipe in method.recipes:
        assert isinstance(recipe, Seams) and recipe.terms
        built_losses = [
            losses.make(LanguageTask.training_loss if t.loss is None else t.loss) for t in recipe.terms
        ]
        assert all(callable(loss.apply) for loss in built_losses)
        assert all(isinstance(term.weight, float) for term in recipe.terms)
        for kind, part in (
            (blends, recipe.blend),
            (samplings, recipe.sampling),
            (selections, recipe.selection),
        ):
            assert callable(kind.make(part).apply)
        if "fresh weights" not in entry.needs:
            added = set(derived.roles) - set(split.roles)
            assert set(recipe.roles) - added <= set(entry.needs)
            assert recipe.roles[0] == "forget" or recipe.roles == ("retain",), (
                "the anchor is what is forgotten"
            )
            texts = {need.text for loss in built_losses for need in loss.needs}
            assert texts - {"answer"} <= set(entry.needs)


@each(methods)
def test_a_methods_parameters_reach_it(entry: Entry) -> None:
    hints = typing.get_type_hints(entry.make)
    for name, default in entry.parameters().items():
        named = {*typing.get_args(hints[name]), "dpo"} - {default}
        changed = 3.0 if default is None else sorted(named)[-1] if isinstance(default, str) else default + 1
        assert entry.make(**{name: changed}) != entry.make(), f"{name} is read"


PARTS: dict[str, Any] = {
    "blend": "pcgrad",
    "sampling": "cyclic",
    "selection": {"name": "layers"},
    "optimizer": SGD(),
    "schedule": Milestones((1.0,)),
    "retain_loss": "simnpo",
}
"""Another part for each seam, and for the loss of the retain terms."""
LACKS = {
    "retrain": set(PARTS),
    "task_vector": set(PARTS) - {"selection"},
    "gradient_ascent": {"retain_loss"},
    "ceu": {"retain_loss"},
    "flat": {"retain_loss"},
    "forget_kl": {"retain_loss"},
    "undial": {"retain_loss"},
    "whp": {"retain_loss"},
    "gu": {"blend"},
    "hamu": {"blend"},
    "ofmu": {"blend"},
    "pdu": {"blend"},
    "guard_attribution": {"sampling"},
    "melu": {"sampling"},
    "klue": {"sampling", "selection"},
}
"""By method: the seams that it owns or lacks; none for a method that is not named."""


@pytest.mark.parametrize("part", PARTS)
@each(methods)
def test_a_seam_is_replaced_or_refused_in_one_line(entry: Entry, part: str) -> None:
    method = entry.make()
    if part in LACKS.get(entry.name, set()):
        with pytest.raises(ConfigError, match=part) as caught:
            method.override(**{part: PARTS[part]})
        assert "\n" not in str(caught.value)
    else:
        changed = method.override(**{part: PARTS[part]})
        assert changed != method and entry.make() == method, "the method itself is left alone"
        (recipe,) = changed.recipes
        if part == "retain_loss":
            assert {term.loss for term in recipe.terms if term.role == "retain"} == {"simnpo"}
        else:
            assert getattr(recipe, part) == PARTS[part]
    assert method.override(**dict.fromkeys(PARTS)) == method, "None leaves every seam as it is"


@each(methods)
def test_a_method_leaves_the_given_artefact_alone(
    entry: Entry, tiny_llama: Any, tokenizer: Any, reinforced: str, split: Split
) -> None:
    """Unless it is told to work in place: then the given model is the one that forgot."""
    method = built(entry.name, reinforced)
    start = artefact_of(tiny_llama, tokenizer)
    digest = start.digest
    rows = with_neighbours(split)
    forgot = api.forget(start, rows, method, quiet=True, **dataclasses.asdict(settings_of()))
    assert isinstance(forgot, Artefact) and forgot.model is not start.model and forgot.task is start.task
    assert start.verify() == digest
    inplace = api.forget(start, rows, method, inplace=True, quiet=True, **dataclasses.asdict(settings_of()))
    assert forgot.weights == inplace.weights, "the same weights either way"
    assert (inplace.model is start.model) == (entry.name != "retrain"), "retraining starts from fresh weights"


def name_of(part: Any) -> str:
    """The name of a seam's part; ``own`` for the method's own."""
    return part["name"] if isinstance(part, dict) else part or "own"


READ = {"retain": ("retain", "answer", "the short brook"), "alternate": ("forget", "alternate", "I forgot.")}
"""By what a method needs: a role, its column, and other words for it."""
WEIGHTED: dict[str, dict[str, Any]] = {"undial": {"alpha": 1.0}, "whp": {"alpha": 1.0}}
"""Parameters of methods whose retain term has no weight by default."""
READING = [
    (entry.name, need)
    for entry in methods.all()
    for need in READ.keys() & set(entry.needs)
    if entry.name != "klue"  # it learns nothing from a model that answers nothing
]


@pytest.mark.parametrize(("name", "need"), sorted(READING))
def test_a_method_learns_from_every_text_that_it_needs(
    name: str, need: str, tiny_llama: Any, tokenizer: Any, reinforced: str, split: Split
) -> None:
    """Other words there, and the weights end elsewhere: a term that is lost would not move them."""
    role, column, other = READ[need]
    rows = with_neighbours(split)
    changed = rows.with_rows(**{role: [{**row, column: other} for row in rows[role].rows]})
    method = built(name, reinforced, **WEIGHTED.get(name, {}))
    settings = dataclasses.asdict(settings_of(epochs=1))
    ends = [
        api.forget(artefact_of(tiny_llama, tokenizer), data, method, quiet=True, **settings).weights
        for data in (rows, changed)
    ]
    assert ends[0] != ends[1]


CORE_BLENDS = [{"name": "ofmu", "inner_steps": 1} if name == "ofmu" else name for name in blends.names()]
"""OFMU ascends once a round: its default takes five times as long to say the same."""
CORE = [
    pytest.param(method, blend, sampling, selection, marks=[pytest.mark.full] if left_out else [])
    for (i, method), blend, (j, sampling), (k, selection) in itertools.product(
        enumerate(("gradient_ascent", "npo", "simnpo", "dpo", "flat")),
        CORE_BLENDS,
        enumerate(("paired", "melu", "guard_attribution")),
        enumerate(("all", "lora", "knowledge_neurons")),
    )
    for left_out in [name_of(blend) == "ofmu" and (i + j + k) % 3 > 0]
]
"""The whole product; of OFMU, which takes most of the time, a third that holds every pair of the others."""
OWN = [(method, None, None, None) for method in methods.names()]
FURTHER = [("npo", None, sampling, None) for sampling in samplings.names()] + [
    ("npo", None, None, selection) for selection in selections.names()
]
ADAPTED = [("task_vector", None, None, "lora"), ("task_vector", None, None, "layers")]
CELLS = [*CORE, *OWN, *FURTHER, *ADAPTED]
INSIDE = {
    "all": "",
    "layers": r"layers\.1\.",
    "lora": r"layers\.\d\..*proj",
    "knowledge_neurons": r"layers\.\d\.mlp\.",
    "output projections": r"layers\.[01]\.mlp\.down_proj\.weight$",
}
"""By selection: a pattern of the names of the weights that may move."""
SELECTS = {"klue": "knowledge_neurons", "rmu": "output projections"}
"""By method: its own selection, where that is not all weights."""


@pytest.mark.parametrize(
    ("method", "blend", "sampling", "selection"),
    CELLS,
    ids=["-".join(name_of(part) for part in getattr(cell, "values", cell)) for cell in CELLS],
)
def test_any_cell_of_the_product_runs_and_resumes(
    method: str,
    blend: Any,
    sampling: str | None,
    selection: str | None,
    tiny_llama: Any,
    tokenizer: Any,
    reinforced: str,
    split: Split,
    tmp_path: Path,
) -> None:
    """Finite, the same twice, exact after a stop, and nothing but the selection moves.

    The run that is stopped and resumed takes every step of the undisturbed one a second time.
    """
    chosen = built(method, reinforced).override(blend=blend, sampling=sampling, selection=selection)
    steps = 2 if blend else 3

    def run(folder: Path, watch: Any = None) -> dict[str, Tensor]:
        start = artefact_of(tiny_llama, tokenizer)
        done = chosen.run(start, split, Run(settings_of(max_steps=steps), folder, watch, 1, quiet=True))
        return done.model.state_dict()

    def stop(model: Any, step: int) -> None:
        if step == steps - 1:
            raise KeyboardInterrupt

    after, before = run(tmp_path / "whole"), tiny_llama.state_dict()
    with contextlib.suppress(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    again = run(tmp_path / "cut")
    assert before.keys() == after.keys() and all(torch.isfinite(value).all() for value in after.values())
    assert all(torch.equal(after[name], again[name]) for name in after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    inside = INSIDE[selection or SELECTS.get(method, "all")]
    assert (moved or sampling == "unforgotten" or method == "klue") and all(
        re.search(inside, name) for name in moved
    )


def test_listing_methods_imports_no_torch() -> None:
    code = (
        "import sys; from unremember.registry import methods; names = methods.names(); "
        "assert len([methods.make(name) for name in names]) >= 7; "
        "print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- the registry itself ---


def test_make_takes_a_name_a_mapping_a_part_or_an_import_path() -> None:
    npo = losses.make({"name": "npo", "beta": 0.3})
    assert npo.beta == 0.3 and losses.make("npo").beta == 0.1 and losses.make(npo) is npo
    assert losses.make("unremember.engine.losses.npo:NPO") == losses.make("npo")
    assert losses.entry("unremember.engine.losses.npo:NPO").name == "npo"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("npi", r"unknown losse? 'npi': did you mean 'npo'\? Known: "),
        ({"beta": 1.0}, "a losse? needs a name: Known: answer_preservation"),
        ({"name": "npo", "bta": 1.0}, r"npo has no parameter 'bta': did you mean 'beta'\? Known: beta"),
        ("no.such.module:Loss", "cannot import losse? 'no.such.module:Loss': No module"),
        ("json:nothing", "cannot import .*nothing"),
        ({"name": "os:system", "command": "true"}, r"os:system is no registered loss: .*@losses\.register"),
        ("unremember.engine.blends.pcgrad:PCGrad", "is no registered loss"),
        ({"name": "npo", "beta": float("nan")}, "beta: a finite number is needed, not nan"),
    ],
    ids=str,
)
def test_what_make_cannot_take_is_one_line(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        losses.make(spec)
    assert "\n" not in str(caught.value)


def test_names_are_spoken_in_the_singular() -> None:
    for kind, singular in ((losses, "loss"), (blends, "blend"), (methods, "method")):
        with pytest.raises(ConfigError, match=f"unknown {singular} 'zzz'"):
            kind.make("zzz")


def test_registering_is_checked() -> None:
    kind = Registry("blends")

    def documented(rate: float) -> float:
        """Gives the rate back.

        More words.
        """
        return rate

    def bare() -> None: ...

    assert (
        kind.register("one", facts_go="along")(documented) is documented
        and kind.register("one")(documented) is documented
    )
    assert kind.entries["one"].summary == "Gives the rate back."
    with pytest.raises(ConfigError, match="two blends are called 'one'"):
        kind.register("one")(type("Other", (), {"__doc__": "Other."}))
    with pytest.raises(ConfigError, match="blends 'two' has no docstring"):
        kind.register("two")(bare)
    with pytest.raises(ConfigError, match="fidelity 'exact' is not one of code, paper"):
        kind.register("three", fidelity="exact")
    with pytest.raises(ConfigError, match="one needs a value for rate"):
        kind.make("one")


def test_installed_packages_add_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Registry("blends")

    class Point:
        """An entry point that registers when it is loaded."""

        def load(self) -> None:
            kind.register("theirs", paper="Theirs")(type("Theirs", (), {"__doc__": "Their blend."}))

    asked: list[str] = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: asked.append(group) or [Point()])
    assert kind.names() == ["theirs"] and kind.names() == ["theirs"] and asked == ["unremember.blends"]
