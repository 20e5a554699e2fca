"""A comparison holds one model at a time, observes each once, and asks its questions in the same pass."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from unremember import api
from unremember.observe.kinds.generations import Generations
from unremember.observe.store import Store
from unremember.runs import compare
from unremember.runs.audit import run_audit
from unremember.runs.compare import run_comparison
from unremember.runs.config import RunConfig, parse_config
from unremember.runs.folder import artefact_of, split_of
from unremember.runs.forget import run_forget
from unremember.runs.train import run_train
from unremember.tasks.artefact import Artefact

QUICK = {"max_steps": 3, "batch_size": 4, "lr": 1e-2}


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unremember.observe.kinds.generations.LIMIT", 4)


@pytest.fixture(scope="module")
def runs(start: str, data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: original, oracle, npo, simnpo."""
    folder = tmp_path_factory.mktemp("runs")
    config: dict[str, Any] = {"data": data, **QUICK}
    run_train(parse_config({"model": start, **config}), folder / "original")
    run_train(parse_config({"model": start, "without": ["forget"], **config}), folder / "oracle")
    for method in ("npo", "simnpo"):
        forget = {"model": str(folder / "original"), "method": method, **config}
        run_forget(parse_config(forget), folder / method)
    return folder


@pytest.fixture
def config(data: Any) -> RunConfig:
    return parse_config({"data": data})


def names(runs: Path) -> dict[str, Any]:
    return {"oracles": [str(runs / "oracle")], "original": str(runs / "original")}


def test_one_model_is_in_memory_at_a_time_and_each_is_observed_once(
    runs: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    observed: list[str] = []

    def load(name: str, template: str = "") -> Artefact:
        gc.collect()
        assert not any(model() for model in loaded), "the model before this one is still there"
        artefact = artefact_of(name, template)
        loaded.append(weakref.ref(artefact.model))
        return artefact

    real = Store.observe

    def observe(self: Store, artefact: Artefact, *given: Any, **named: Any) -> Any:
        observed.append(artefact.weights)
        return real(self, artefact, *given, **named)

    monkeypatch.setattr(compare, "artefact_of", load)
    monkeypatch.setattr(Store, "observe", observe)
    models = [str(runs / name) for name in ("npo", "simnpo")]
    comparison = run_comparison(models, config, **names(runs), store=tmp_path)
    assert len(loaded) == len(observed) == len(set(observed)) == 4
    assert [artefact.name for artefact in comparison.artefacts] == ["original", "oracle", "npo", "simnpo"]


def test_its_figures_are_those_of_an_audit_by_hand(runs: Path, config: RunConfig, data: Any) -> None:
    comparison = run_comparison([str(runs / "npo")], config, **names(runs), show_text=True)
    split = split_of(data)
    original, oracle, npo = (artefact_of(str(runs / name)) for name in ("original", "oracle", "npo"))
    by_hand = api.audit(npo, split, oracle=oracle, original=original, quiet=True)
    assert list(comparison.artefacts[-1].measurements) == [m.row() for m in by_hand]
    assert comparison.artefacts[-1].digest == npo.digest
    said = Store().observe(npo, split, [Generations("forget")], quiet=True)[Generations("forget")]
    answers = {row["question"]: text for row, text in zip(split["forget"].rows, said, strict=True)}
    samples = [sample for sample in comparison.samples if sample["role"] == "forget"]
    assert len(samples) == 3 and len(comparison.samples) == 5
    assert all(sample["said"]["npo"] == answers[sample["question"]] for sample in samples)


def test_an_unknown_audit_is_refused_before_anything_is_loaded(config: RunConfig) -> None:
    with pytest.raises(Exception, match="did you mean 'rouge'"):
        run_comparison(["nowhere/at/all"], config, audits=["roge"])


def test_an_audit_keeps_what_it_measured_in_the_run(runs: Path, config: RunConfig) -> None:
    comparison = run_audit(str(runs / "simnpo"), config, audits=["probability"], **names(runs))
    assert [row["name"] for row in comparison.artefacts[-1].measurements] == ["probability"]
    for name in ("measurements.json", "comparison.json", "report.html", "model/README.md"):
        assert (runs / "simnpo" / name).exists()
