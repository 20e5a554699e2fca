"""What observations give: the token records of some texts, and all values of one artefact by request."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np

from unremember.data.split import Split
from unremember.errors import DataError
from unremember.observe.protocol import ObservationRequest, ObservedValue


@dataclasses.dataclass(frozen=True)
class TokenRecords:
    """Token records of n texts with N tokens in all: every likelihood metric derives from them.

    Args:
        rows: int64[n], the row of the role that each text belongs to; several texts may share a row.
        offsets: int64[n + 1]; the tokens of text i are ``offsets[i]:offsets[i + 1]``.
        logprobs: float32[N], log p(token | prompt, earlier tokens), in nats.
        matches: bool[N], whether the token is the model's greedy choice.
        ends: bool[n], whether the last token is the end-of-sequence token.
        texts: The n texts.
        moments: float32[N, 2], mean and variance of log p(v), v drawn from the distribution that predicts the
            token; None where they were not requested.
        greedy: int64[N], the model's greedy choice at each token; None for records that no model made.
    """

    rows: np.ndarray
    offsets: np.ndarray
    logprobs: np.ndarray
    matches: np.ndarray
    ends: np.ndarray
    texts: Sequence[str]
    moments: np.ndarray | None = None
    greedy: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64[n]: the number of tokens of each text."""
        return np.diff(self.offsets)

    @cached_property
    def loss(self) -> np.ndarray:
        """float64[n]: the mean cross-entropy of each text's tokens, in nats; NaN for a text without tokens.

        Its exp(-·) is the probability per token.
        """
        owner = np.repeat(np.arange(len(self)), self.lengths)
        with np.errstate(invalid="ignore"):
            return -np.bincount(owner, self.logprobs.astype(np.float64), len(self)) / self.lengths

    def tokens(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (log-probabilities float32[L], matches bool[L]) of text i."""
        span = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        return self.logprobs[span], self.matches[span]


@dataclasses.dataclass(frozen=True)
class Observations:
    """What was observed of ONE artefact on a split: ``observations[request]`` is the value of a request.

    Args:
        artefact: The digest of the artefact.
        weights: The digest of its weights alone.
        split: The data.
        values: The values by request.
    """

    artefact: str
    weights: str
    split: Split
    values: Mapping[ObservationRequest[Any], Any]

    def __contains__(self, request: object) -> bool:
        return request in self.values

    def __getitem__(self, request: ObservationRequest[ObservedValue]) -> ObservedValue:
        """Return the value of a request. Raises DataError where it was not observed."""
        if request not in self.values:
            raise DataError(f"{request} was not observed: name it in the audit's requests()")
        return cast(ObservedValue, self.values[request])
