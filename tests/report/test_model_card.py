"""The card says what was forgotten by hash, how, and only what was measured on these very weights."""

from __future__ import annotations

from typing import Any

from unremember.report.model_card import UNMEASURED_NOTE, model_card

RUN: dict[str, Any] = {
    "kind": "forget",
    "digests": {"data": "d", "start": "before", "weights": "after", "artefact": "after and its task"},
    "versions": {"python": "3.11", "torch": "2"},
    "roles": {"forget": {"rows": 4, "digest": "f00d"}, "retain": {"rows": 36, "digest": "cafe"}},
    "config": {
        "model": "/home/someone/model",
        "data": {"name": "files", "roles": {"forget": "/home/someone/names.json"}},
        "without": [],
        "method": {"name": "npo", "beta": 0.2},
        "selection": "lora",
        "blend": None,
        "settings": {"lr": 1e-4, "seed": 3},
    },
}


def measurement(artefact: str = "after and its task", **fields: Any) -> dict[str, Any]:
    return {
        "name": "probability",
        "value": 0.1234,
        "low": 0.1,
        "high": 0.15,
        "artefact": artefact,
        "verdict": "under-forgotten",
        "position": 0.2,
        "position_low": 0.1,
        "position_high": 0.3,
        "controls": {"oracle": [0.02, 0.03], "original": 0.98},
        "extra": {},
        **fields,
    }


def test_what_and_how() -> None:
    card = model_card(RUN, [], {})
    assert card.startswith("---\n") and "tags: [machine-unlearning" in card and UNMEASURED_NOTE in card
    assert (
        "| forget | 4 | `f00d` |" in card
        and '`{"name": "npo", "beta": 0.2}`' in card
        and "- selection: `lora`" in card
    )
    assert "`before`" in card and "`after`" in card and '"seed": 3' in card and "blend" not in card
    assert "/home/someone" not in card, "no path, no name of a file of personal data"


def test_a_figure_stands_beside_its_controls_and_belongs_to_these_weights() -> None:
    card = model_card(RUN, [measurement(), measurement("another", name="rouge")], {})
    assert "| probability | 0.123 | 0.10–0.15 | 0.020 0.030 | 0.980 | under-forgotten |" in card
    assert "rouge" not in card and UNMEASURED_NOTE not in card
    assert UNMEASURED_NOTE in model_card(RUN, [measurement("another")], {})


def test_the_worst_point_of_every_attack() -> None:
    points = [
        {"amount": a, "measurements": [measurement("attacked", position=p)]}
        for a, p in ((0, 0.1), (10, 0.7), (20, 0.5))
    ]
    blind = [{"amount": 8, "measurements": [measurement("attacked", position=None)]}]
    card = model_card(RUN, [measurement()], {"relearning": points, "quantisation": blind})
    assert (
        "- relearning, at 10: 0.70 (0.10 … 0.30) by probability: under-forgotten" in card
        and "quantisation" not in card
    )


def test_text_of_a_configuration_stays_on_its_line() -> None:
    odd = {**RUN, "config": {**RUN["config"], "template": "`a`\n# b \x1b[31m"}}
    assert r"- template: `'a'\n# b \x1b[31m`" in model_card(odd, [], {}).splitlines()
