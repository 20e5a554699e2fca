"""Records made by hand, and a world of made-up models whose knowledge is known."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from unremember.data.split import Split, make_split
from unremember.observe.records import Observations, Scores, Want

ANSWER = "one two three four"


def scores(
    tokens: Sequence[Sequence[float]],
    matches: Sequence[Sequence[bool]] | None = None,
    rows: Sequence[int] | None = None,
    ends: bool = False,
    texts: Sequence[str] | None = None,
) -> Scores:
    """Records of one text for each list of token log-probabilities."""
    flat = np.array([value for text in tokens for value in text], dtype=np.float32)
    hits = (
        np.zeros(len(flat), dtype=bool)
        if matches is None
        else np.array([m for text in matches for m in text], dtype=bool)
    )
    offsets = np.cumsum([0, *map(len, tokens)])
    where = np.arange(len(tokens)) if rows is None else np.array(rows)
    return Scores(
        where, offsets, flat, hits, np.full(len(tokens), ends), list(texts or [ANSWER] * len(tokens))
    )


def losses(values: Any, rows: Sequence[int] | None = None) -> Scores:
    """Records of texts of one token, with these losses."""
    return scores([[-float(value)] for value in values], rows=rows)


def seen(
    split: Split,
    scored: dict[tuple[str, str], Scores],
    said: dict[str, Sequence[str]] | None = None,
    artefact: str = "a",
) -> Observations:
    return Observations(
        artefact,
        split,
        {Want("scores", *key): one for key, one in scored.items()},
        {Want("generations", role): texts for role, texts in (said or {}).items()},
    )


def rows(n: int, groups: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"{i}?", "answer": ANSWER, "entity": f"subject {i % groups}", **more} for i in range(n)
    ]


def world_split(n: int = 200, groups: int = 20) -> Split:
    full = {"paraphrased_answer": ANSWER, "perturbed_answers": ["x", "y"]}
    roles = {"forget": rows(n, groups, **full), "holdout": rows(n, groups), "kept": rows(40, 40, **full)}
    return make_split(roles, utility=("kept",))


def model(
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
    """Records of a model between an oracle (``knows`` 0) and an original (1), or below 0.

    Loss of the forget answers 3 - 2.9 · knows, of wrong answers and holdout 3; ``spread`` is the noise by subject and
    row that all models share, ``own`` the model's own by row. ``useful=0`` leaves no utility, ``mute`` says nothing.
    """
    split = world_split(n, groups)
    common, mine = np.random.default_rng(7), np.random.default_rng(zlib.crc32(name.encode()))
    subject = common.normal(0, spread, groups)[np.arange(n) % groups]
    base, jitter = common.normal(0, spread, (4, n)), mine.normal(0, own, (4, n))
    known = 3 - 2.9 * knows + subject
    noise = (base + jitter) * (1.0 if knows < 0.9 else 0.1)
    answer, para, wrong, other = np.abs(np.stack([known, known, np.full(n, 3.0), np.full(n, 3.0)]) + noise)
    hits = common.random((n, 4)) < np.exp(-answer)[:, None]
    kept = np.full(40, 0.1 if useful else 60.0)
    scored = {
        ("forget", "answer"): scores([[-loss] * 4 for loss in answer], hits.tolist()),
        ("forget", "paraphrased_answer"): losses(para),
        ("forget", "perturbed_answers"): losses(np.repeat(wrong, 2), np.repeat(np.arange(n), 2).tolist()),
        ("holdout", "answer"): losses(other),
        ("kept", "answer"): losses(kept),
        ("kept", "paraphrased_answer"): losses(kept),
        ("kept", "perturbed_answers"): losses(
            np.full(80, 60.0 if not useful else 4.0), np.repeat(np.arange(40), 2).tolist()
        ),
    }
    words = ANSWER.split()
    spoken = [" ".join(words[: 0 if mute else int(hit.sum())]) for hit in hits]
    return seen(split, scored, {"forget": spoken, "kept": ["" if mute or not useful else ANSWER] * 40}, name)
