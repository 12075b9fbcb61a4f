"""Random numbers of a compiled run: a counter-based stream whose two words, (2,) key and counter, are its whole state.

Source: Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators" (SplitMix64).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from games.lean import INLINE

Stream = NDArray[np.uint64]
GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S11, S27, S30, S31, ONE = (np.uint64(s) for s in (11, 27, 30, 31, 1))


def stream_of(*seed: int) -> Stream:
    """A fresh stream."""
    key = np.random.SeedSequence([int(s) for s in seed]).generate_state(1, np.uint64)[0]
    return np.array([key, 0], np.uint64)


@njit(**INLINE)
def uniform(stream):
    """The next number, in [0, 1)."""
    stream[1] += ONE
    x = stream[0] + stream[1] * GOLDEN
    x = (x ^ (x >> S30)) * FIRST
    x = (x ^ (x >> S27)) * SECOND
    return np.float64((x ^ (x >> S31)) >> S11) * (1.0 / 9007199254740992.0)


@njit(**INLINE)
def below(stream, n):
    """The next whole number from 0 to n - 1."""
    return min(np.int64(uniform(stream) * n), n - 1)
