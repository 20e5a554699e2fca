"""The random order of rows, keyed by each row's content: deleting a row moves no other row."""

from __future__ import annotations

import numpy as np


def mix(keys: np.ndarray, *salts: int) -> np.ndarray:
    """Hash ``keys`` under ``salts`` (splitmix64): a random order of rows.

    A row's hash depends on the row and the salts alone, so removing a row keeps the order of the remaining
    ones.

    Args:
        keys: uint64[n], one key a row.
        salts: The numbers that tell one order from another, such as the seed and the epoch.

    Returns:
        uint64[n].
    """
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64)
        for salt in salts:
            z = z + np.uint64(0x9E3779B97F4A7C15) * np.uint64(salt + 1)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z


def epoch_order(keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the order of rows in an epoch: int64[n], a permutation."""
    return np.argsort(mix(keys, seed, epoch), kind="stable")
