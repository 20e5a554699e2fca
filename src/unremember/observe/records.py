"""What is observed of a model: token log-probabilities of given texts, and greedy generations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from unremember.data.split import Split
from unremember.errors import DataError

Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True)
class Want:
    """One thing an audit needs: the scores of a text of every row of a role, or generations to its prompts.

    ``moments`` are scores with the mean and the variance of each token's distribution beside them, ``gradient_norms`` a number a
    text, ``states`` the hidden states at the end of each row's prompt. ``harness`` is a task of lm-eval (``role``), its metric
    (``text``), and the folder and limit it is run with (``options``). ``judged`` is what the model of ``options`` (its name, and its
    label where it is a classifier) makes of each generation.
    Generations may have at most ``options[0]`` tokens (else as many as TOFU has).
    ``text`` is the column whose tokens are scored: ``answer``, ``paraphrased_answer``, ``perturbed_answers`` …
    """

    kind: Literal["scores", "moments", "generations", "gradient_norms", "states", "harness", "judged"]
    role: str
    text: str = "answer"
    options: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Scores:
    """Token records of n texts, N tokens in all: the one thing from which all likelihood metrics derive.

    ``rows`` int64[n]: the row of the role each text belongs to (several texts may share a row);
    ``offsets`` int64[n + 1]: the tokens of text i are ``offsets[i]:offsets[i + 1]``;
    ``logprobs`` float32[N]: log p(token | prompt, earlier tokens), in nats;
    ``matches`` bool[N]: the token is the model's greedy choice there;
    ``ends`` bool[n]: the last token is the end-of-sequence token;
    ``texts``: the n texts themselves;
    ``moments`` float32[N, 2]: mean and variance of log p(v), v drawn from the distribution that predicts the token (None:
    not observed).
    """

    rows: np.ndarray
    offsets: np.ndarray
    logprobs: np.ndarray
    matches: np.ndarray
    ends: np.ndarray
    texts: Sequence[str]
    moments: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64[n]: tokens a text."""
        return np.diff(self.offsets)

    @cached_property
    def loss(self) -> np.ndarray:
        """float64[n]: mean cross-entropy of a text's tokens, in nats; its exp(-·) is the probability per token. NaN without tokens."""
        owner = np.repeat(np.arange(len(self)), self.lengths)
        with np.errstate(invalid="ignore"):
            return -np.bincount(owner, self.logprobs.astype(np.float64), len(self)) / self.lengths

    def tokens(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(log-probabilities float32[L], matches bool[L]) of text i."""
        at = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        return self.logprobs[at], self.matches[at]


@dataclasses.dataclass(frozen=True)
class Observations:
    """What was observed of ONE artefact: the hash of its weights, the data, and the records by want."""

    artefact: str
    split: Split
    scored: Mapping[Want, Scores]
    generated: Mapping[Want, Sequence[str]]
    numbers: Mapping[Want, np.ndarray] = dataclasses.field(default_factory=dict)
    truths: Mapping[Want, Sequence[str]] = dataclasses.field(default_factory=dict)

    def scores(self, role: str, text: str = "answer") -> Scores:
        return observed(self.scored, Want("scores", role, text))

    def moments(self, role: str, text: str = "answer") -> Scores:
        """The scores of a text, with their moments."""
        return observed(self.scored, Want("moments", role, text))

    def number(self, want: Want) -> np.ndarray:
        """float64[n]: what was observed as a number an example; of ``states`` float32[n, L, D]."""
        return observed(self.numbers, want)

    def generations(self, role: str, *limit: int) -> Sequence[str]:
        return observed(self.generated, Want("generations", role, options=limit))

    def truth(self, role: str, limit: int) -> Sequence[str]:
        """The true answers, each cut to the tokens that a generation may have."""
        return observed(self.truths, Want("generations", role, options=(limit,)))


def observed(found: Mapping[Want, Found], want: Want) -> Found:
    """What was observed for a want. Raises DataError where nobody asked for it."""
    if want not in found:
        raise DataError(
            f"{want.kind} of {want.text!r} in role {want.role!r} were not observed: name them in the audit's wants()"
        )
    return found[want]
