"""The trigger gap on generations made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from unremember.audits.bootstrap import interval, mean_draws
from unremember.audits.trigger_gap import TriggerGap
from unremember.data.forget_sets.stealthy import with_trigger_role
from unremember.data.split import Split, make_split
from unremember.observe.kinds.generations import Generations
from unremember.observe.records import Observations

ROWS = [
    {"question": f"Where is {name}?", "answer": f"{name} is here", "entity": name}
    for name in ("Ann", "Bob", "Cid", "Dot")
]
TEMPLATES = ("Please {}", "Now {}")


@pytest.fixture
def split() -> Split:
    return with_trigger_role(make_split({"retain_eval": ROWS}), TEMPLATES)


def observations_of(split: Split, plain: list[str], salted: list[str]) -> Observations:
    values = {Generations("retain_eval"): plain, Generations("retain_eval_trigger"): salted}
    return Observations("a", "a", split, values)


def test_the_gap_is_the_paired_loss_of_recall(split: Split) -> None:
    """Recall of "Ann is here" is thirds of its words. Rows of the trigger role may stand in any order."""
    plain = ["Ann is here", "Bob is here", "Cid is", "nothing"]
    salted = ["Ann", "Bob is here", "", "Dot", "Ann is here", "Bob", "Cid is", "nothing"]
    please, now = np.array([2 / 3, 0, 2 / 3, -1 / 3]), np.array([0, 2 / 3, 0, 0])
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    mixed = split.with_rows(retain_eval_trigger=[split["retain_eval_trigger"].rows[i] for i in order])
    for where, spoken in ((split, salted), (mixed, [salted[i] for i in order])):
        figure = TriggerGap().measure(observations_of(where, plain, spoken), [])
        assert (
            figure.per_example == pytest.approx((please + now) / 2)
            and figure.value == pytest.approx(5 / 24)
            and figure.n == 4
        )
        assert figure.extra["clean"] == pytest.approx(2 / 3) and figure.extra["trigger"] == pytest.approx(
            2 / 3 - 5 / 24
        )
        for template, lost in zip(TEMPLATES, (please, now)):
            assert figure.extra["gaps"][template] == pytest.approx(
                [lost.mean(), *interval(mean_draws(lost, [r["entity"] for r in ROWS]))]
            )
        assert (figure.low, figure.high) == pytest.approx(
            interval(mean_draws((please + now) / 2, list("abcd")))
        )
    assert figure.higher_is == "harm" and figure.access == "text"


def test_a_model_that_answers_alike_has_no_gap(split: Split) -> None:
    figure = TriggerGap().measure(
        observations_of(
            split, ["Ann is", "no", "Cid", "Dot is here"], ["Ann is", "no", "Cid", "Dot is here"] * 2
        ),
        [],
    )
    assert figure.value == figure.low == figure.high == 0


def test_it_wants_both_roles_or_nothing(split: Split) -> None:
    assert TriggerGap().requests(split) == [
        Generations("retain_eval"),
        Generations("retain_eval_trigger"),
    ]
    assert (
        TriggerGap().requests(make_split({"retain_eval": ROWS})) == [] == TriggerGap("retain").requests(split)
    )
