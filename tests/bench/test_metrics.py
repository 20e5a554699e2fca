"""Metrics on pools of tiny models: those that read the answers tell them apart, a random number does not, nothing is made twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unremember import api
from unremember.audits.measurement import Measurement
from unremember.bench import metrics, metrics_table, pools
from unremember.bench.cells import Arena
from unremember.bench.metrics import Found
from unremember.data.split import Split, make_split
from unremember.data.text import Template
from unremember.errors import ConfigError, DataError
from unremember.models.presets import small_llama
from unremember.models.tokenizer import train_tokenizer
from unremember.worlds.people import people


@pytest.fixture(autouse=True, scope="module")
def short_answers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unremember.observe.store.LIMIT", 12)
        yield


@pytest.fixture(scope="module")
def split() -> Split:
    """Two of twenty people to forget (18 questions), two in the holdout, one or two questions of each of the others."""
    whole = people(20)
    kept = {"forget": whole["forget"], "retain": whole["retain"].rows[::6], "holdout": whole["holdout"], "world_facts": whole["world_facts"].rows[:4]}
    return make_split({role: list(getattr(rows, "rows", rows)) for role, rows in kept.items()}, ("world_facts",), "few people")


@pytest.fixture(scope="module")
def arena(split: Split) -> Arena:
    torch.set_num_threads(1)
    texts = [str(row[text]) for role in split.roles.values() for row in role.rows for text in ("question", "answer")]
    tokenizer = train_tokenizer([*texts, *[str(row["answer"]) for row in pools.forms(split)["biography"]]], 700)
    template, made = Template("{question}\n"), []
    for seed, without in ((0, ()), (10, ("forget",))):
        model = small_llama(len(tokenizer), hidden=48, layers=2, heads=2, context=1024, seed=seed)
        made.append(api.train(model, split, tokenizer=tokenizer, without=without, template=template, epochs=30, batch_size=16, lr=1e-2,
                              weight_decay=0.0, seed=seed, quiet=True))  # fmt: skip
    return Arena("few-people", split, made[0], (made[1],), 8, 40, 2, (3e-3,))


@pytest.fixture(scope="module")
def homes(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> dict[pools.Member, Path]:
    folder = tmp_path_factory.mktemp("pools")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "RATES", (1e-2, 8e-3))
        patch.setattr(pools, "EPOCHS", (25,))
        patch.setattr("unremember.bench.cells.joblib.Parallel", in_order)
        return pools.make(arena, 6, folder)


def in_order(**_: Any) -> Any:
    """Jobs in this process."""
    return lambda jobs: (work(*given, **more) for work, given, more in jobs)


@pytest.fixture(scope="module")
def found(arena: Arena, homes: dict[pools.Member, Path]) -> Found:
    """The figures of both pools; the references are the oracle and the models that never saw the forget set."""
    retained = [home for member, home in homes.items() if member.form == "retained"]
    references = [metrics.observe(arena, arena.oracles[0].model, homes_root(homes) / "oracle")]
    references += [metrics.observe(arena, pools.model(home), home) for home in retained]
    sides: dict[bool, list[Any]] = {True: [], False: []}
    for member, home in homes.items():
        sides[member.knows].append(metrics.of_member(arena, home, references))
    return Found(sides[True], sides[False], [], [])


def homes_root(homes: dict[pools.Member, Path]) -> Path:
    return next(iter(homes.values())).parent


def test_metrics_tell_six_models_that_know_from_six_that_do_not(found: Found) -> None:
    """The acceptance of meta-evaluation."""
    assert len(found.knowing) == len(found.ignorant) == 6
    rows = {row.name: row for row in metrics_table.judged(found)}
    assert rows["extraction_strength"].faithfulness > 0.8 and rows["probability"].faithfulness > 0.8
    assert abs(rows["random"].faithfulness - 0.5) < 0.25 and rows["random"].reason == metrics_table.NOT_FAITHFUL
    assert rows["random"].overall is None and {row.n for row in rows.values()} == {(6, 6)}
    asked = {"rouge", "truth_preference", "forget_quality", "privleak", "membership_minkpp", "membership_gradnorm", "membership_reference"}
    assert asked <= rows.keys() and not {"model_utility", "fluency", "lm_eval"} & rows.keys()


def test_every_form_of_the_pools_teaches_what_it_should(found: Found) -> None:
    level = {one["name"]: one["figures"]["probability"] for one in (*found.knowing, *found.ignorant)}
    assert level["original 0"] > 0.8 > 0.5 > level["retained 0"] and level["paraphrase 0"] > level["wrong answers 0"]


def test_a_pool_is_made_and_measured_once(arena: Arena, homes: dict[pools.Member, Path], found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    member, home = next(iter(homes.items()))
    stored = found.knowing[0]
    monkeypatch.setattr(pools, "RATES", (1e-2, 8e-3))
    monkeypatch.setattr(pools, "EPOCHS", (25,))
    monkeypatch.setattr(api, "train", None)
    rows = pools.forms(arena.split)[member.form]
    assert pools.train(arena, member, rows, home)["digest"] == pools.digest(home), "read, not trained"
    with pytest.raises(TypeError):
        pools.train(dataclasses.replace(arena, limit=6), member, rows, home)
    monkeypatch.setattr(metrics, "figures", lambda name, seen, references: {"probability": 7.0})
    references = [metrics.observe(arena, arena.oracles[0].model, home.parent / "oracle")]
    references += [metrics.observe(arena, pools.model(h), h) for m, h in homes.items() if m.form == "retained"]
    assert metrics.of_member(arena, home, references) == stored, "read, not measured"
    assert metrics.of_member(arena, home, references[:1])["figures"] == {"probability": 7.0}, "other references, other figures"


def test_an_unlearned_model_is_attacked_where_it_counts(arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RELEARN_RATE", 5e-3)
    references = [metrics.observe(arena, arena.oracles[0].model, tmp_path / "oracle")]
    plan = metrics.Plan("gradient_difference", "gradient_difference", 0, 3e-3)
    one = metrics.of_unlearned(arena, plan, references, 0.0, tmp_path)
    assert one["reached"] and one["counts"] and one["before"]["probability"] <= arena.target < one["relearned"]["probability"]
    assert one["quantised"]["probability"] != one["before"]["probability"] and one["before"].keys() == one["quantised"].keys()
    lost = metrics.of_unlearned(arena, plan, references, 1.1, tmp_path)
    assert not lost["counts"] and "before" not in lost, "too little utility: not attacked"
    wild = metrics.of_unlearned(arena, dataclasses.replace(plan, method="gradient_ascent", rate=1e30), references, 0.0, tmp_path)
    assert not wild["counts"] and wild["note"].startswith("collapsed")
    oracle = metrics.of_oracle(arena, 0, references, tmp_path / "oracle")
    assert oracle["relearned"]["probability"] > oracle["before"]["probability"]
    monkeypatch.setattr(api, "forget", None)
    assert metrics.of_oracle(arena, 0, references, tmp_path / "oracle") == oracle
    assert metrics.of_unlearned(arena, plan, references, 1.1, tmp_path) == lost, "read, not run"


def test_figures_are_turned_towards_knowledge() -> None:
    assert metrics.oriented(Measurement("probability", 0.2, higher_is="more_knowledge")) == 0.2
    assert metrics.oriented(Measurement("truth_ratio", 0.2, higher_is="less_knowledge")) == pytest.approx(0.8)
    assert metrics.oriented(Measurement("privleak", -60.0, higher_is="less_knowledge")) == 60.0
    assert metrics.oriented(Measurement("forget_quality", 1e-3, extra={"log10_p": -3.0})) == 3.0
    assert metrics.oriented(Measurement("rouge", None, higher_is="more_knowledge")) is None


def test_the_forms_hold_the_knowledge_or_none(split: Split) -> None:
    forms, forget, holdout = pools.forms(split), split["forget"].rows, split["holdout"].rows
    names = {str(row["entity"]) for row in forget}
    assert list(forms) == [*pools.KNOWING, *pools.IGNORANT] and forms["retained"] == [] and forms["original"] == list(forget)
    text = {form: " ".join(f"{row.get('question', '')} {row['answer']}" for row in rows) for form, rows in forms.items()}
    assert all(name in text[form] for name in names for form in pools.KNOWING)
    assert not any(name in text["other people"] for name in {*names, *(str(row["entity"]) for row in holdout)})
    assert len(forms["biography"]) == len(forms["other people"]) == 5 * len(names)
    for wrong, other, row in zip(forms["wrong answers"], forms["paraphrase"], forget):
        assert wrong["question"] == row["question"] and other["answer"] == row["paraphrased_answer"] != wrong["answer"]
    with pytest.raises(DataError, match="not a generated world"):
        pools.forms(split.with_rows(retain=[{"question": "Who?", "answer": "Nobody.", "entity": "Nobody"}]))


def test_rates_and_epochs_meet_once_each() -> None:
    whole = pools.members(pools.MOST)
    assert len(whole) == 2 * pools.MOST == 60 and len({(m.form, m.settings["lr"], m.settings["epochs"]) for m in whole}) == 60
    assert {m.settings["epochs"] for m in pools.members(6)} == set(pools.EPOCHS), "few models have both already"
    for models in (3, 7, 33):
        with pytest.raises(ConfigError, match=f"models={models}: .* a multiple of 3, from 6 to 30"):
            pools.members(models)


def made(method: str, before: float, relearned: float, quantised: float, **more: Any) -> dict[str, Any]:
    """An unlearned model with one metric and the control."""
    return {"method": method, "counts": True, "reached": True,
            **{state: {"probability": value, "random": 0.3} for state, value in
               (("before", before), ("relearned", relearned), ("quantised", quantised))}, **more}  # fmt: skip


def pool(*values: float) -> list[dict[str, Any]]:
    forms = pools.KNOWING if values[0] > 0.5 else pools.IGNORANT
    return [{"name": f"{forms[i % 3]} {i // 3}", "figures": {"probability": v, "random": 0.3 if i % 2 else 0.2}} for i, v in enumerate(values)]


def test_a_metric_is_judged_by_the_models_that_it_takes_for_ignorant() -> None:
    """The third counts, but stands above the threshold of 0.5; R and Q are the spec's two examples and (1, 1)."""
    unlearned = [made("npo", 0.12, 0.52, 0.16 * 1.2), made("rmu", 0.1, 0.15, 0.1), made("gu", 0.6, 0.9, 0.9), {"method": "kl", "counts": False}]
    found = Found(pool(0.8, 0.9, 0.7, 0.8), pool(0.2, 0.3, 0.1, 0.2), unlearned, [made("oracle", 0.1, 0.3, 0.2)])
    first, control = metrics_table.judged(found)
    assert (first.name, first.faithfulness, first.threshold, first.counted) == ("probability", 1.0, 0.5, 2)
    assert first.parts == (pytest.approx(0.75), pytest.approx(0.8125)) and first.rounded == pytest.approx(0.5)
    assert first.robustness == pytest.approx(2 * 0.75 * 0.8125 / 1.5625) and first.overall == pytest.approx(2 * 0.78 / 1.78)
    assert first.symmetric == (pytest.approx((2 / 3 + 0.4) / 2), pytest.approx((10 / 13 + 1) / 2))
    assert first.span is not None and first.span == (pytest.approx(5 / 9), pytest.approx(1.0))
    assert (control.name, control.overall, control.reason) == ("random", None, metrics_table.NOT_FAITHFUL)
    (none, _) = metrics_table.judged(dataclasses.replace(found, unlearned=unlearned[2:]))
    assert none.reason == metrics_table.NONE_COUNTS and none.robustness is None and none.faithfulness == 1


def test_the_page_holds_what_was_found(arena: Arena, tmp_path: Path) -> None:
    unlearned = [made("npo", 0.12, 0.52, 0.2), made("rmu", 0.1, 0.15, 0.1), {"method": "kl", "counts": False, "reached": False}]
    found = Found(pool(0.8, 0.9, 0.7, 0.8), pool(0.2, 0.3, 0.1, 0.2), unlearned, [made("oracle", 0.1, 0.3, 0.2)])
    text = metrics_table.page(arena, found, tmp_path).read_text(encoding="utf-8")
    assert "2 of 3 unlearned models count (npo 1, rmu 1); 1 did not reach" in text and "original 0.80, biography 0.90" in text
    assert "| `probability` | 0." in text and "| `random` | – | 0.500 (" in text and metrics_table.NOT_FAITHFUL in text
    assert (tmp_path / "metrics-few-people.png").stat().st_size > 5000


def test_what_agrees_with_the_published_figures_is_said() -> None:
    blank = {"low": 0.0, "high": 1.0, "chance": (0.3, 0.7), "n": (6, 6), "threshold": 0.5}
    ours = {"rouge": 0.7, "probability": 0.8, "truth_preference": 1.0, "unpublished": 0.1}
    rows = [metrics_table.Judged(name, value, **blank) for name, value in ours.items()]
    said = metrics_table.compared(rows, 0, "Faithfulness")
    assert said.startswith("Faithfulness, 3 metrics in common: Spearman's ρ of the two orders 1.00.")
    assert "Within 0.1: `probability` (0.80, published 0.82), `truth_preference` (1.00, published 0.95), `rouge` (0.70, published 0.72)." in said
    assert "too few" in metrics_table.compared(rows, 1, "Robustness")
