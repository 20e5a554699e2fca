"""Metrics on pools of tiny models: those that read answers tell them apart, a random number does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from unremember import api
from unremember.audits.measurement import Measurement
from unremember.cli.app import app
from unremember.data.split import Split, make_split
from unremember.errors import ConfigError, DataError
from unremember.experiments import metrics, metrics_table, pools
from unremember.experiments.cells import Arena, CellPlan
from unremember.experiments.metrics import MetricFigures, MetricsTask
from unremember.models.presets import small_llama
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.tokenizers import train_tokenizer
from unremember.worlds.people import people_split


@pytest.fixture(autouse=True, scope="module")
def short_answers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unremember.observe.kinds.generations.LIMIT", 12)
        yield


@pytest.fixture(scope="module")
def split() -> Split:
    """A person to forget, one in the holdout, and a question of each of the other nineteen."""
    whole = people_split(20, forget=0.05, holdout=0.05)
    kept = {
        role: whole[role].rows[::step]
        for role, step in {"forget": 1, "retain": 9, "holdout": 1, "world_facts": 9}.items()
    }
    return make_split(kept, utility=("world_facts",), name="few people")


@pytest.fixture(scope="module")
def arena(split: Split) -> Arena:
    torch.set_num_threads(1)
    texts = [
        str(row[text])
        for role in split.roles.values()
        for row in role.rows
        for text in ("question", "answer")
    ]
    told = [
        str(row["answer"])
        for form in ("biography", "other people")
        for row in pools.forget_set_forms(split)[form]
    ]
    tokenizer = train_tokenizer([*texts, *told], 700)
    made = []
    for seed, without in ((0, ()), (10, ("forget",))):
        model = small_llama(
            len(tokenizer), hidden=48, layers=2, heads=2, context=1024, seed=seed, spread=0.02
        )
        made.append(
            api.train(
                Artefact(model, LanguageTask.of(model, tokenizer, "{question}\n")),
                split,
                without=without,
                epochs=45,
                batch_size=32,
                lr=1.2e-2,
                weight_decay=0.0,
                seed=seed,
                quiet=True,
            )
        )
    return Arena("few-people", split, made[0], (made[1],), 8, 40, 2, (3e-3,))


def measure(arena: Arena, folder: Path) -> MetricFigures:
    """Six models of each pool, and one unlearned model that counts whatever its utility."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "POOL_RATES", (1.2e-2, 9.6e-3))
        patch.setattr(pools, "POOL_EPOCHS", (45,))
        patch.setattr(metrics, "RELEARN_RATE", 5e-3)
        patch.setattr(metrics, "KEPT_UTILITY", 0.0)
        return metrics.measure_metrics(arena, 6, folder, ["gradient_difference"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def found(arena: Arena, folder: Path) -> MetricFigures:
    return measure(arena, folder)


def test_metrics_tell_six_models_that_know_from_six_that_do_not(found: MetricFigures) -> None:
    """The acceptance of meta-evaluation."""
    assert len(found.knowing) == len(found.ignorant) == 6
    rows = {row.name: row for row in metrics_table.ranked_metrics(found)}
    assert rows["extraction_strength"].faithfulness > 0.8 and rows["probability"].faithfulness > 0.8
    assert (
        abs(rows["random"].faithfulness - 0.5) < 0.25 and rows["random"].reason == metrics_table.NOT_FAITHFUL
    )
    assert rows["random"].overall is None and {row.n for row in rows.values()} == {(6, 6)}
    asked = {
        "rouge",
        "truth_preference",
        "forget_quality",
        "privleak",
        "membership_minkpp",
        "membership_gradnorm",
        "membership_reference",
    }
    assert asked <= rows.keys() and not {"model_utility", "fluency", "lm_eval"} & rows.keys()


def test_every_form_of_the_pools_teaches_what_it_should(found: MetricFigures) -> None:
    level = {one["name"]: one["figures"]["probability"] for one in (*found.knowing, *found.ignorant)}
    assert (
        level["original 0"] > 0.3
        and level["paraphrase 0"] > 2 * level["retained 0"]
        and level["biography 0"] > 2 * level["other people 0"]
    )


def test_the_unlearned_and_the_retrained_are_attacked_alike(arena: Arena, found: MetricFigures) -> None:
    (one,), (oracle,) = found.unlearned, found.retrained
    assert (
        one["reached"]
        and one["counts"]
        and one["before"]["probability"] <= arena.target < one["relearned"]["probability"]
    )
    assert (
        one["quantised"]["probability"] != one["before"]["probability"]
        and one["before"].keys() == one["quantised"].keys()
    )
    assert oracle["relearned"]["probability"] != oracle["before"]["probability"] < arena.target


def test_nothing_is_made_or_measured_twice(
    arena: Arena, folder: Path, found: MetricFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("train", "forget"):
        monkeypatch.setattr(api, part, None)
    monkeypatch.setattr(metrics, "metric_values", None)
    assert measure(arena, folder) == found, "read, not run"
    lost = folder / "pools" / "biography 1"
    (lost / "figures.json").unlink()
    monkeypatch.setattr(metrics, "metric_values", lambda name, seen, references: {"probability": 7.0})
    assert [
        one["name"] for one in measure(arena, folder).knowing if one["figures"] == {"probability": 7.0}
    ] == ["biography 1"]
    (lost / "member.json").unlink()
    with pytest.raises(TypeError):
        measure(arena, folder)


def test_a_run_that_fails_is_a_recorded_result(arena: Arena, tmp_path: Path) -> None:
    task = MetricsTask(arena, [], 0.0, tmp_path)
    wild = CellPlan("gradient_ascent", "gradient_ascent", 0, 1e30)
    one = metrics.measure_attacked(task, wild)
    assert not one["counts"] and one["note"].startswith("collapsed")
    one = metrics.measure_attacked(task, CellPlan("retain_descent", "retain_descent", 0, 1e-4, steps=1))
    assert not one["reached"] and not one["counts"] and "before" not in one, (
        "what has not forgotten is not attacked"
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["people-40", "--models", "7"], "multiple of 3"),
        (["persons-40"], "no arena 'persons-40'"),
        (["people-40", "--method", "npoo"], "did you mean 'npo'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    words: list[str], why: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        app, ["experiment", "metrics", *words, "-w", str(tmp_path), "-o", str(tmp_path)]
    )
    assert (
        isinstance(done.exception, ConfigError)
        and why in str(done.exception)
        and not list(tmp_path.iterdir())
    )


def test_figures_are_turned_towards_knowledge() -> None:
    assert metrics.oriented_value(Measurement("probability", 0.2, higher_is="more_knowledge")) == 0.2
    assert metrics.oriented_value(
        Measurement("truth_ratio", 0.2, higher_is="less_knowledge")
    ) == pytest.approx(0.8)
    assert metrics.oriented_value(Measurement("privleak", -60.0, higher_is="less_knowledge")) == 60.0
    assert metrics.oriented_value(Measurement("forget_quality", 1e-3, extra={"log10_p": -3.0})) == 3.0
    assert metrics.oriented_value(Measurement("rouge", None, higher_is="more_knowledge")) is None


def test_the_forms_hold_the_knowledge_or_none(split: Split) -> None:
    forms, forget, holdout = pools.forget_set_forms(split), split["forget"].rows, split["holdout"].rows
    names = {str(row["entity"]) for row in forget}
    assert (
        list(forms) == [*pools.KNOWING, *pools.IGNORANT]
        and forms["retained"] == []
        and forms["original"] == list(forget)
    )
    text = {
        form: " ".join(f"{row.get('question', '')} {row['answer']}" for row in rows)
        for form, rows in forms.items()
    }
    assert all(name in text[form] for name in names for form in pools.KNOWING)
    assert not any(
        name in text["other people"] for name in {*names, *(str(row["entity"]) for row in holdout)}
    )
    assert len(forms["biography"]) == len(forms["other people"]) == 5 * len(names)
    for wrong, other, row in zip(forms["wrong answers"], forms["paraphrase"], forget):
        assert (
            wrong["question"] == row["question"]
            and other["answer"] == row["paraphrased_answer"] != wrong["answer"]
        )
    with pytest.raises(DataError, match="not a generated world"):
        pools.forget_set_forms(
            split.with_rows(retain=[{"question": "Who?", "answer": "Nobody.", "entity": "Nobody"}])
        )


def test_rates_and_epochs_meet_once_each() -> None:
    whole = pools.pool_members(pools.LARGEST_POOL)
    assert (
        len(whole) == 2 * pools.LARGEST_POOL == 60
        and len({(m.form, m.settings["lr"], m.settings["epochs"]) for m in whole}) == 60
    )
    assert {m.settings["epochs"] for m in pools.pool_members(6)} == set(pools.POOL_EPOCHS), (
        "few models have both already"
    )
    for models in (3, 7, 33):
        with pytest.raises(ConfigError, match=f"models={models}: .* a multiple of 3, from 6 to 30"):
            pools.pool_members(models)


def made(method: str, before: float, relearned: float, quantised: float, **more: Any) -> dict[str, Any]:
    """An unlearned model with one metric and the control."""
    return {
        "method": method,
        "counts": True,
        "reached": True,
        **{
            state: {"probability": value, "random": 0.3}
            for state, value in (("before", before), ("relearned", relearned), ("quantised", quantised))
        },
        **more,
    }


def pool(*values: float) -> list[dict[str, Any]]:
    forms = pools.KNOWING if values[0] > 0.5 else pools.IGNORANT
    return [
        {"name": f"{forms[i % 3]} {i // 3}", "figures": {"probability": v, "random": 0.3 if i % 2 else 0.2}}
        for i, v in enumerate(values)
    ]


def test_a_metric_is_judged_by_the_models_that_it_takes_for_ignorant() -> None:
    """The third counts, but is above the threshold of 0.5; R and Q are the spec's two examples and (1, 1)."""
    unlearned = [
        made("npo", 0.12, 0.52, 0.16 * 1.2),
        made("rmu", 0.1, 0.15, 0.1),
        made("gu", 0.6, 0.9, 0.9),
        {"method": "kl", "counts": False},
    ]
    found = MetricFigures(
        pool(0.8, 0.9, 0.7, 0.8), pool(0.2, 0.3, 0.1, 0.2), unlearned, [made("oracle", 0.1, 0.3, 0.2)]
    )
    first, control = metrics_table.ranked_metrics(found)
    assert (first.name, first.faithfulness, first.threshold, first.counted) == ("probability", 1.0, 0.5, 2)
    assert first.parts == (pytest.approx(0.75), pytest.approx(0.8125)) and first.rounded == pytest.approx(0.5)
    assert first.robustness == pytest.approx(2 * 0.75 * 0.8125 / 1.5625) and first.overall == pytest.approx(
        2 * 0.78 / 1.78
    )
    assert first.symmetric == (pytest.approx((2 / 3 + 0.4) / 2), pytest.approx((10 / 13 + 1) / 2))
    assert first.span is not None and first.span == (pytest.approx(5 / 9), pytest.approx(1.0))
    assert (control.name, control.overall, control.reason) == ("random", None, metrics_table.NOT_FAITHFUL)
    (none, _) = metrics_table.ranked_metrics(dataclasses.replace(found, unlearned=unlearned[2:]))
    assert none.reason == metrics_table.NONE_COUNTS and none.robustness is None and none.faithfulness == 1


def test_the_page_holds_what_was_found(arena: Arena, tmp_path: Path) -> None:
    unlearned = [
        made("npo", 0.12, 0.52, 0.2),
        made("rmu", 0.1, 0.15, 0.1),
        {"method": "kl", "counts": False, "reached": False},
    ]
    found = MetricFigures(
        pool(0.8, 0.9, 0.7, 0.8), pool(0.2, 0.3, 0.1, 0.2), unlearned, [made("oracle", 0.1, 0.3, 0.2)]
    )
    text = metrics_table.metrics_page(arena, found, tmp_path).read_text(encoding="utf-8")
    assert (
        "2 of 3 unlearned models count (npo 1, rmu 1); 1 did not reach" in text
        and "original 0.80, biography 0.90" in text
    )
    assert (
        "| `probability` | 0." in text
        and "| `random` | – | 0.500 (" in text
        and metrics_table.NOT_FAITHFUL in text
    )
    assert (tmp_path / "metrics-few-people.png").stat().st_size > 5000


def test_what_agrees_with_the_published_figures_is_said() -> None:
    blank = {"low": 0.0, "high": 1.0, "chance": (0.3, 0.7), "n": (6, 6), "threshold": 0.5}
    ours = {"rouge": 0.7, "probability": 0.8, "truth_preference": 1.0, "unpublished": 0.1}
    rows = [metrics_table.MetricWorth(name, value, **blank) for name, value in ours.items()]
    said = metrics_table.beside_published(rows, 0, "Faithfulness")
    assert said.startswith("Faithfulness, 3 metrics in common: Spearman's ρ of the two orders 1.00.")
    assert (
        "Within 0.1: `probability` (0.80, published 0.82), `truth_preference` (1.00, published 0.95), "
        "`rouge` (0.70, published 0.72)." in said
    )
    assert "too few" in metrics_table.beside_published(rows, 1, "Robustness")
