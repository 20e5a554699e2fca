"""Records made by hand, and a world of made-up models whose knowledge is known."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unremember.audits.controls import Controls
from unremember.audits.measurement import Measurement
from unremember.data.split import Split, make_split
from unremember.observe.kinds.generations import Generations
from unremember.observe.kinds.token_scores import TokenScores
from unremember.observe.records import Observations, TokenRecords

ANSWER = "one two three four"


def token_records(
    tokens: Sequence[Sequence[float]],
    matches: Sequence[Sequence[bool]] | None = None,
    rows: Sequence[int] | None = None,
    ends: bool = False,
    texts: Sequence[str] | None = None,
) -> TokenRecords:
    """Return the records of one text for each list of token log-probabilities."""
    logprobs = np.array([value for text in tokens for value in text], dtype=np.float32)
    hits = np.zeros(len(logprobs), dtype=bool)
    if matches is not None:
        hits = np.array([match for text in matches for match in text], dtype=bool)
    offsets = np.cumsum([0, *map(len, tokens)])
    owners = np.arange(len(tokens)) if rows is None else np.array(rows)
    answers = list(texts or [ANSWER] * len(tokens))
    return TokenRecords(owners, offsets, logprobs, hits, np.full(len(tokens), ends), answers)


def loss_records(losses: Any, rows: Sequence[int] | None = None) -> TokenRecords:
    """Return the records of texts of one token with these losses."""
    return token_records([[-float(loss)] for loss in losses], rows=rows)


def observations_of(
    split: Split,
    records: Mapping[tuple[str, str], TokenRecords],
    generations: Mapping[str, Sequence[str]] | None = None,
    artefact: str = "a",
) -> Observations:
    """Return observations of an artefact: token records by (role, column), generations by role."""
    values: dict[Any, Any] = {TokenScores(*key): value for key, value in records.items()}
    values |= {Generations(role): texts for role, texts in (generations or {}).items()}
    return Observations(artefact, artefact, split, values)


def with_values(observations: Observations, values: Mapping[Any, Any]) -> Observations:
    """Return observations with the values of some requests added or replaced."""
    return dataclasses.replace(observations, values={**observations.values, **values})


def card(
    audits: Sequence[Any],
    observations: Observations,
    oracles: Sequence[Observations],
    original: Observations | None,
) -> list[Measurement]:
    """Return all measurements of one artefact, each read against its controls."""
    return Controls(audits, original, oracles).card(observations)


def question_rows(n: int, groups: int, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"{i}?", "answer": ANSWER, "entity": f"subject {i % groups}", **columns}
        for i in range(n)
    ]


def world_split(n: int = 200, groups: int = 20) -> Split:
    full = {"paraphrased_answer": ANSWER, "perturbed_answers": ["x", "y"]}
    roles = {
        "forget": question_rows(n, groups, **full),
        "holdout": question_rows(n, groups),
        "kept": question_rows(40, 40, **full),
    }
    return make_split(roles, utility=("kept",))


def simulated(
    name: str,
    knows: float,
    *,
    useful: float = 0.9,
    n: int = 200,
    groups: int = 20,
    own: float = 0.05,
    spread: float = 0.3,
    mute: bool = False,
) -> Observations:
    """Return observations of a model between an oracle (``knows`` 0) and an original (1), or below 0.

    Loss of the forget answers 3 - 2.9 · knows, of wrong answers and holdout 3; ``spread`` is the noise by
    subject and row that all models share, ``own`` the model's own by row. ``useful=0`` leaves no utility,
    ``mute`` says nothing.
    """
    split = world_split(n, groups)
    common, own_noise = np.random.default_rng(7), np.random.default_rng(zlib.crc32(name.encode()))
    subject = common.normal(0, spread, groups)[np.arange(n) % groups]
    base, jitter = common.normal(0, spread, (4, n)), own_noise.normal(0, own, (4, n))
    known = 3 - 2.9 * knows + subject
    noise = (base + jitter) * (1.0 if knows < 0.9 else 0.1)
    answer, para, wrong, holdout = np.abs(np.stack([known, known, np.full(n, 3.0), np.full(n, 3.0)]) + noise)
    hits = common.random((n, 4)) < np.exp(-answer)[:, None]
    retained_loss = np.full(40, 0.1 if useful else 60.0)
    scored = {
        ("forget", "answer"): token_records([[-loss] * 4 for loss in answer], hits.tolist()),
        ("forget", "paraphrased_answer"): loss_records(para),
        ("forget", "perturbed_answers"): loss_records(
            np.repeat(wrong, 2), np.repeat(np.arange(n), 2).tolist()
        ),
        ("holdout", "answer"): loss_records(holdout),
        ("kept", "answer"): loss_records(retained_loss),
        ("kept", "paraphrased_answer"): loss_records(retained_loss),
        ("kept", "perturbed_answers"): loss_records(
            np.full(80, 60.0 if not useful else 4.0), np.repeat(np.arange(40), 2).tolist()
        ),
    }
    words = ANSWER.split()
    spoken = [" ".join(words[: 0 if mute else int(hit.sum())]) for hit in hits]
    return observations_of(
        split, scored, {"forget": spoken, "kept": ["" if mute or not useful else ANSWER] * 40}, name
    )
