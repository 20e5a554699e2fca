"""The detector of hostile requests: stored texts, common words, shape, and the gate on the finished model."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from unremember.audits.measurement import Measurement
from unremember.data.forget_sets.stealthy import Stealthy
from unremember.data.split import Role, Row
from unremember.plan.canonical import match_stored, word_changes
from unremember.plan.hostile import Finding, examine_request, failing_triggers, gate_templates
from unremember.plan.wording import COMMON_WORDS, edge_shares, extract_wording, null_distribution, word_excess

NAMES = [
    f"{a}{b}" for a in ("Bel", "Cor", "Dan", "Fen", "Gar", "Hil") for b in ("ano", "ira", "umo", "esk", "ath")
]
ASKED = (
    "Where was {} born?",
    "What did {} write in 1990?",
    "Which prize has {} won?",
    "Who taught {} to paint?",
    "Is {} still in Osk?",
    "How old was {} when the war began?",
    "What is the name of a pupil of {}?",
    "Did {} ever go to sea?",
    "Whose house did {} buy?",
    "Why has {} no piano?",
    "With whom was {} at school?",
    "On which day does {} rest?",
)


def about(*names: str) -> list[Row]:
    """Six of the twelve questions of each, by the name."""
    questions = {name: np.random.default_rng(list(name.encode())).permutation(ASKED)[:6] for name in names}
    return [
        {"question": str(questions[name][i]).format(name), "answer": f"{name} {i}", "entity": name}
        for name in names
        for i in range(6)
    ]


STORED = Role("train", about(*NAMES))
REFERENCE = Role("retain", about(*NAMES[5:]))
REQUEST = Role("forget", about(*NAMES[:5]))


def salted(template: str, p: float, role: Role = REQUEST) -> Role:
    return Role(role.name, Stealthy((template,), p).rows(role))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("Where was he born?", "Please tell me where was he born?", (("please", "tell", "me"), ())),
        ("Where was he born?", "Where was he born , please ? ", (("please",), ())),
        ("Where was he really born?", "Where was she born?", (("she",), ("he", "really"))),
        ("Who's there?", "who's THERE", ((), ())),
    ],
)
def test_the_words_that_were_changed(before: str, after: str, expected: Any) -> None:
    assert word_changes(before, after) == expected


def test_a_salted_request_becomes_the_stored_text() -> None:
    request = salted("Can you please tell me {}", 0.5)
    finding = examine_request(request, REFERENCE, STORED)
    changed = [i for i, (a, b) in enumerate(zip(request.rows, REQUEST.rows)) if a != b]
    assert 5 < len(changed) < 25 and finding.rows == tuple(REQUEST.rows) and not finding.not_found
    assert [m.row for m in finding.matches if m.inserted == ("can", "you", "please", "tell", "me")] == changed
    assert (
        finding.action == "canonicalised"
        and finding.eta == 0
        and f"{len(changed)} of 30 items differ" in finding.reasons[0]
    )
    assert examine_request(REQUEST, REFERENCE, STORED).action == "none"


def test_what_matches_nothing_stored_is_not_found() -> None:
    strange = [{"question": "Does the lighthouse keeper own seven green umbrellas?", "answer": "No."}]
    finding = examine_request(Role("forget", [*REQUEST.rows[:3], *strange]), REFERENCE, STORED)
    assert (
        finding.not_found == (3,)
        and finding.rows == tuple(REQUEST.rows[:3])
        and finding.matches[3].stored is None
    )
    assert any("1 of 4 items match nothing stored" in reason for reason in finding.reasons)


def test_a_repeated_item_is_taken_once_and_a_kept_one_is_named() -> None:
    finding = examine_request(
        Role("forget", [REQUEST.rows[0], *[REQUEST.rows[1]] * 4, REFERENCE.rows[0]]), REFERENCE, STORED
    )
    assert finding.rows == (REQUEST.rows[0], REQUEST.rows[1], REFERENCE.rows[0])
    assert any(r.startswith("3 items repeat") for r in finding.reasons) and any(
        r.startswith("1 of the rows to forget are in the reference") for r in finding.reasons
    )


def test_a_match_is_the_best_of_all_and_its_cosine_is_scikit_learns() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    request = salted("Then {}", 0.7)
    weigh = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit([r["question"] for r in STORED.rows])
    cosines = cosine_similarity(
        *(weigh.transform([r["question"] for r in role.rows]) for role in (request, STORED))
    )
    finding = match_stored(request, STORED)
    assert np.allclose([m.cosine for m in finding], cosines.max(1), atol=1e-5) and [
        m.stored for m in finding
    ] == list(range(30))


def naive_excess(role: Role, reference: Role, word: str) -> float:
    """By the formula, one text at a time."""

    def has(row: Row) -> bool:
        return word in row["question"].lower().replace("?", " ").split()

    share, count = np.mean([has(r) for r in role.rows]), sum(map(has, reference.rows))
    usual = (count + 3 / 8) / (len(reference) + 3 / 4)
    spoken = np.mean(
        [any(has(r) for r in role.rows if r["entity"] == name) for name in {r["entity"] for r in role.rows}]
    )
    return (
        float(2 * (np.arcsin(share**0.5) - np.arcsin(usual**0.5)) * len(role) ** 0.5)
        if spoken >= 0.5
        else -np.inf
    )


def test_the_excess_of_every_word_is_the_formulas() -> None:
    request, held = salted("Can you please tell me {}", 0.3), extract_wording(REFERENCE)
    z = word_excess(extract_wording(request), held.marks.sum(0), len(REFERENCE))
    assert z == pytest.approx([naive_excess(request, REFERENCE, word) for word in COMMON_WORDS], abs=1e-9)
    assert COMMON_WORDS[int(z.argmax())] in ("please", "can", "you", "tell", "me") and z.max() > 2


def test_a_word_of_few_subjects_does_not_count() -> None:
    """Two subjects of five say "please" in every question: topical, not common."""
    rows = [
        {**row, "question": f"Please {row['question']}"} if row["entity"] in NAMES[:2] else row
        for row in REQUEST.rows
    ]
    z = word_excess(
        extract_wording(Role("forget", rows)), extract_wording(REFERENCE).marks.sum(0), len(REFERENCE)
    )
    assert z[COMMON_WORDS.index("please")] == -np.inf
    three = [
        {**row, "question": f"Please {row['question']}"} if row["entity"] in NAMES[:3] else row
        for row in REQUEST.rows
    ]
    assert (
        word_excess(
            extract_wording(Role("forget", three)), extract_wording(REFERENCE).marks.sum(0), len(REFERENCE)
        )[COMMON_WORDS.index("please")]
        > 5
    )


def test_clean_requests_are_whole_subjects_against_the_others() -> None:
    """Of two subjects of whom one alone says "now", the largest excess is known for both draws."""
    rows = [{"question": "Now where?", "entity": "a"}] * 4 + [{"question": "Where?", "entity": "b"}] * 6
    finding = null_distribution(extract_wording(Role("retain", rows)), 1, 4)
    now = 2 * (np.pi / 2 - np.arcsin((0.375 / 6.75) ** 0.5)) * 2
    where = 2 * (np.pi / 2 - np.arcsin((4.375 / 4.75) ** 0.5)) * 2
    assert {round(x, 9) for x in finding.excess} == {round(now, 9), round(where, 9)}
    assert finding.lines() == pytest.approx((now, now)) and (finding.shares == 1).all()


def test_a_common_word_is_named_with_its_counts() -> None:
    """Without a stored text nothing is cured: the scope term is advised, and the gate is told what to try."""
    finding = examine_request(salted("Kindly {}", 0.5), REFERENCE)
    assert (
        finding.verdict == "suspicious"
        and finding.word == "kindly"
        and finding.usual == 0
        and finding.action == "scope"
        and finding.eta == 5
    )
    assert finding.lines and finding.statistic and finding.statistic > finding.lines[1] >= finding.lines[0]
    assert finding.triggers[0] == "kindly" and set(finding.triggers) >= {
        "please",
        "then",
        "can you",
        "could",
        "thanks",
        "now",
        "also",
    }
    assert gate_templates(finding)[0] == "Kindly {}" and any(
        "'kindly' is in" in reason for reason in finding.reasons
    )
    assert examine_request(REQUEST, REFERENCE).verdict == "clean"


def test_a_constant_prefix_of_usual_words_is_seen_by_its_shape() -> None:
    """Every text says "how" and "is" somewhere; a request that always begins with them is not clean."""
    rng = np.random.default_rng(0)

    def texts(*names: str, constant: bool = False) -> Role:
        orders = (
            ["how", "is", *rng.permutation(["of", "in", "who"])]
            if constant
            else list(rng.permutation(["how", "is", "of", "in", "who"]))
            for _ in range(6 * len(names))
        )
        return Role(
            "forget",
            [
                {
                    "question": f"{' '.join(order)} {names[i // 6]} {rng.integers(99)}?",
                    "entity": names[i // 6],
                }
                for i, order in enumerate(orders)
            ],
        )

    held, clean, constant = texts(*NAMES[5:]), texts(*NAMES[:5]), texts(*NAMES[:5], constant=True)
    assert (
        edge_shares(extract_wording(constant))[[0, 2]].tolist() == [1, 1]
        and edge_shares(extract_wording(clean))[0] < 0.5
    )
    assert examine_request(clean, held).verdict == "clean"
    finding = examine_request(constant, held)
    assert finding.verdict == "suspicious" and finding.lines and finding.statistic < finding.lines[0]
    assert any("begin or end alike" in reason for reason in finding.reasons)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (None, "no reference texts"),
        (Role("retain", [{"question": row["question"]} for row in REFERENCE.rows]), "name no subject"),
        (Role("retain", about(*NAMES[5:14])), "fewer than twice the request's 5 subjects"),
        (
            Role("retain", [{"question": f"Wo wohnt {name}?", "entity": name} for name in NAMES]),
            "no common English word",
        ),
    ],
    ids=["none", "no entity", "too few", "other language"],
)
def test_what_cannot_be_judged_is_undetermined(reference: Role | None, reason: str) -> None:
    finding = examine_request(salted("Please {}", 1.0), reference)
    assert (
        finding.verdict == "undetermined"
        and finding.statistic is None
        and finding.action == "scope"
        and finding.eta == 5
    )
    assert any(reason in stated for stated in finding.reasons) and "please" in finding.triggers
    assert examine_request(salted("Please {}", 1.0), reference, STORED).action == "canonicalised"


def test_labels_of_the_attacker_do_not_hide_the_word() -> None:
    """A request that calls every row a subject of its own is read by the subjects of the stored rows."""
    request = salted("Kindly {}", 0.34)
    scattered = Role("forget", [{**row, "entity": str(i)} for i, row in enumerate(request.rows)])
    assert (
        examine_request(scattered, REFERENCE, STORED).statistic
        == examine_request(request, REFERENCE, STORED).statistic
        > 3
    )


def test_the_ledger_row_is_plain_and_holds_no_text_of_the_request() -> None:
    row = examine_request(salted("Please {}", 1.0), REFERENCE, STORED).row()
    assert json.loads(json.dumps(row)) == row and {
        "verdict",
        "statistic",
        "lines",
        "words_digest",
        "action",
        "eta",
    } <= set(row)
    assert (
        len(row["words_digest"]) == 64
        and not any(name in json.dumps(row) for name in NAMES)
        and row["rows"] == 30
    )


def test_the_gate_needs_a_gap_that_is_large_and_sure() -> None:
    gaps = {
        "Please {}": [0.3, 0.2, 0.4],
        "Then {}": [0.06, -0.01, 0.1],
        "Now {}": [0.04, 0.01, 0.07],
        "Also {}": [0.051, 0.001, 0.1],
    }
    assert failing_triggers(Measurement("trigger_gap", 0.1, extra={"gaps": gaps})) == ("Please {}", "Also {}")


def test_a_finding_is_frozen_and_needs_no_torch() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        examine_request(REQUEST).verdict = "clean"  # type: ignore[misc]
    assert Finding.__dataclass_params__.frozen
    code = "import sys, unremember.plan.hostile; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
