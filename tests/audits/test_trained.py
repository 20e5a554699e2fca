"""Audits on models that were really trained: a tiny world with its oracles and a wreck, and TOFU."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import card

from unremember import api
from unremember.audits.controls import requests_of
from unremember.audits.forget_quality import ForgetQuality
from unremember.audits.membership import MembershipLoss, MembershipMinK, MembershipMinKPP, MembershipZlib
from unremember.audits.memorisation import ExactMemorisation, ExtractionStrength
from unremember.audits.model_utility import ModelUtility
from unremember.audits.probability import Probability
from unremember.audits.truth_ratio import TruthRatio, log_truth_ratios
from unremember.benchmarks.tofu import TOFU
from unremember.data.split import Role, Split
from unremember.models.presets import small_llama
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.tasks.artefact import Artefact, load_artefact
from unremember.tasks.tokenizers import train_tokenizer
from unremember.worlds.people import people_split

SCORING = (
    Probability(),
    TruthRatio(),
    ForgetQuality(),
    MembershipLoss(),
    MembershipMinK(),
    MembershipZlib(),
    ExtractionStrength(),
    ExactMemorisation(),
)
ALL = (MembershipMinKPP(), *SCORING, ModelUtility())
UTILITY_ROWS = 12


def fewer(split: Split, steps: Mapping[str, int]) -> Split:
    """Every n-th row of some roles."""
    return dataclasses.replace(
        split,
        roles={name: Role(name, list(r.rows)[:: steps.get(name, 1)]) for name, r in split.roles.items()},
    )


def observe(artefact: Artefact, split: Split) -> Observations:
    return Store().observe(artefact, split, requests_of(ALL, split), quiet=True)


@pytest.fixture(scope="module")
def world() -> dict[str, Observations]:
    """Twelve of 24 people to forget: the original, two oracles of different seeds, an ascent run too far."""
    torch.set_num_threads(1)
    split = people_split(count=24, forget=0.5, holdout=0.5)
    tokenizer = train_tokenizer(
        [row[text] for role in split.roles.values() for row in role.rows for text in ("question", "answer")],
        1024,
    )
    artefacts = {}
    for name, seed, without in (
        ("original", 0, ()),
        ("oracle", 1, ("forget",)),
        ("oracle 2", 2, ("forget",)),
    ):
        model = small_llama(len(tokenizer), hidden=64, layers=2, heads=4, context=256, seed=seed)
        artefacts[name] = api.train(
            model,
            split,
            tokenizer=tokenizer,
            without=without,
            epochs=20,
            lr=8e-3,
            batch_size=32,
            seed=seed,
            weight_decay=0.0,
            quiet=True,
        )
    artefacts["wreck"] = api.forget(
        artefacts["original"],
        split,
        "gradient_ascent",
        epochs=5,
        lr=8e-3,
        warmup=0.0,
        quiet=True,
    )
    small = fewer(split, {role: len(split[role]) // UTILITY_ROWS for role in split.utility})
    return {name: observe(result, small) for name, result in artefacts.items()}


def value(audit: Any, observations: Observations, *oracles: Observations) -> float:
    result = audit.measure(observations, list(oracles)).value
    assert result is not None
    return result


def test_the_memoriser_knows_and_the_retrained_do_not(world: dict[str, Observations]) -> None:
    known = {name: value(Probability(), observations) for name, observations in world.items()}
    assert (
        known["original"] > 0.75 and max(known["oracle"], known["oracle 2"]) < 0.05 and known["wreck"] < 1e-3
    )


@pytest.mark.parametrize("attack", [MembershipLoss(), MembershipMinK(), MembershipZlib(), MembershipMinKPP()])
def test_membership_of_the_memoriser_and_of_the_retrained(
    world: dict[str, Observations], attack: Any
) -> None:
    assert value(attack, world["original"]) > 0.9
    for name in ("oracle", "oracle 2"):
        result = attack.measure(world[name], [])
        assert result.low - 0.1 < 0.5 < result.high + 0.1 and abs(result.value - 0.5) < 0.15, (
            "12 people against 12: ± 0.1 is one deviation"
        )


def test_forget_quality_of_seeds_and_of_the_memoriser(world: dict[str, Observations]) -> None:
    quality, oracle, second = ForgetQuality(), world["oracle"], world["oracle 2"]
    assert value(quality, oracle, oracle) == 1.0
    assert value(quality, second, oracle) > 0.05
    assert value(quality, world["original"], oracle) < 1e-3
    assert value(quality, world["wreck"], oracle) < 1e-3


def test_truth_ratios_stand_where_they_should(world: dict[str, Observations]) -> None:
    median = {
        name: float(np.exp(np.median(log_truth_ratios(observations, "forget"))))
        for name, observations in world.items()
    }
    assert median["original"] < 0.6 and 0.7 < median["oracle"] < 1.4 and 0.7 < median["oracle 2"] < 1.4


def test_the_card_of_the_wreck_says_collapsed_and_nothing_else(world: dict[str, Observations]) -> None:
    result = {
        m.name: m for m in card(ALL, world["wreck"], [world["oracle"], world["oracle 2"]], world["original"])
    }
    assert result["model_utility"].value < 0.1 < result["model_utility"].controls["original"] / 2
    forgetting = [m for name, m in result.items() if name != "model_utility"]
    assert {m.verdict for m in forgetting} == {"undetermined"} and all(
        "the model collapsed" in m.note for m in forgetting
    )


def test_a_retrained_model_is_cleared_by_another_and_the_memoriser_is_not(
    world: dict[str, Observations],
) -> None:
    retrained = card(SCORING, world["oracle 2"], [world["oracle"]], world["original"])
    assert {m.name for m in retrained if m.verdict != "indistinguishable"} <= {
        "membership_mink",
        "membership_zlib",
        "membership_loss",
    }
    assert all(abs(m.position) < 0.35 for m in retrained if m.position is not None)
    twin = dataclasses.replace(world["original"], artefact="twin", weights="twin")
    assert {m.verdict for m in card(SCORING, twin, [world["oracle"]], world["original"])} == {
        "under-forgotten"
    }


def test_utility_is_the_harmonic_mean_of_its_nine_parts(world: dict[str, Observations]) -> None:
    result = ModelUtility().measure(world["original"], [])
    parts = list(result.extra["parts"].values())
    assert len(parts) == 9 and result.value == pytest.approx(9 / sum(1 / p for p in parts), abs=1e-9)
    assert result.low < result.value < result.high


@pytest.fixture(scope="module")
def tofu(data_folder: Path) -> dict[str, Observations]:
    """Two questions an author of forget10, 40 of the holdout, ten and more of each utility role."""
    torch.set_num_threads(1)
    split = fewer(
        TOFU(str(data_folder / "tofu")).split(),
        {"forget": 10, "holdout": 10, "retain_eval": 40, "real_authors": 10, "world_facts": 10},
    )
    artefacts = {}
    for name, folder in (("original", "tofu-tiny-llama"), ("oracle", "tofu-tiny-llama-retain90")):
        artefacts[name] = observe(load_artefact(data_folder / folder), split)
    return artefacts


def test_tofu_probabilities_are_those_that_were_measured_in_training(tofu: dict[str, Observations]) -> None:
    """As published: .942 and .002 on forget10, .955 and .932 on retain, .001 and .000 on holdout10."""
    for role, (original, oracle), off in (
        ("forget", (0.942, 0.002), 0.03),
        ("retain_eval", (0.955, 0.932), 0.08),
        ("holdout", (0.001, 0.0), 0.003),
    ):
        assert value(Probability(role=role), tofu["original"]) == pytest.approx(original, abs=off)
        assert value(Probability(role=role), tofu["oracle"]) == pytest.approx(oracle, abs=off)


def test_tofu_separates_original_and_oracle_by_every_audit(tofu: dict[str, Observations]) -> None:
    twin = dataclasses.replace(tofu["original"], artefact="twin", weights="twin")
    result = {m.name: m for m in card(ALL, twin, [tofu["oracle"]], tofu["original"])}
    assert {m.verdict for name, m in result.items() if name != "model_utility"} == {"under-forgotten"}
    assert result["membership_loss"].value == 1.0 and result["forget_quality"].value < 1e-3
    assert (
        result["extraction_strength"].value > 0.8
        and result["extraction_strength"].controls["oracle"][0] < 0.1
    )
    assert (
        result["exact_memorisation"].value > 0.97
        and 0.15 < result["exact_memorisation"].controls["oracle"][0] < 0.4
    )
    assert result["model_utility"].value > 0.85 and result["model_utility"].controls["oracle"][0] > 0.85
