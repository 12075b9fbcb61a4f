"""relu(relu(x A + a) B + b) C + c compiled, forth and back, some rows at a time; weights are (A, a, B, b, C, c)."""

from __future__ import annotations

import numpy as np
from numba import njit

from rl.pairs import RULES, ZERO, add

TOGETHER = 256  # rows at a time: their intermediates fit the first-level cache


@njit(cache=True, error_model="numpy", fastmath=RULES)
def hidden(x, w, one, two):
    """Fill ``one`` and ``two`` (M, H), the layers' outputs from x (M, F)."""
    np.dot(x, w[0], one)
    for r in range(len(one)):
        here = one[r]
        for h in range(len(here)):
            here[h] = max(here[h] + w[1][h], ZERO)
    np.dot(one, w[2], two)
    for r in range(len(two)):
        here = two[r]
        for h in range(len(here)):
            here[h] = max(here[h] + w[3][h], ZERO)


@njit(cache=True, error_model="numpy", fastmath=RULES)
def backward(x, one, two, slope, w, turned, spare, d):
    """Add to ``d``, arrays as the weights, the gradient of rows whose outputs have slopes ``slope`` (M, O).

    ``turned`` are B and C turned; ``two`` and ``spare`` (M, H) are lost.
    """
    for r in range(len(slope)):
        for o in range(slope.shape[1]):
            d[5][o] += slope[r, o]
    add(d[4], np.dot(two.T, slope))
    np.dot(slope, turned[1], spare)
    _through(spare, two, d[3])
    add(d[2], np.dot(one.T, spare))
    np.dot(spare, turned[0], two)
    _through(two, one, d[1])
    add(d[0], np.dot(x.T, two))


@njit(cache=True, error_model="numpy", fastmath=RULES)
def _through(slope, out, bias):
    """Slopes (M, H) through a relu whose output is ``out``; their sums are added to ``bias`` (H,)."""
    for r in range(len(slope)):
        here, there = slope[r], out[r]
        for h in range(len(bias)):
            here[h] = ZERO if there[h] <= ZERO else here[h]  # what is not a number stays so
        for h in range(len(bias)):
            bias[h] += here[h]


@njit(cache=True, error_model="numpy", nogil=True)
def values(x, w, out):
    """Fill ``out`` (M,), the one output of each row of x (M, F)."""
    room = np.empty((2, TOGETHER, w[1].shape[0]), np.float32)
    for first in range(0, len(x), TOGETHER):
        last = min(first + TOGETHER, len(x))
        one, two = room[0, : last - first], room[1, : last - first]
        hidden(x[first:last], w, one, two)
        found = np.dot(two, w[4])
        for r in range(last - first):
            out[first + r] = found[r, 0] + w[5][0]


@njit(cache=True, error_model="numpy", nogil=True)
def slopes(x, slope, w, d):
    """Add to ``d`` the gradient of rows x (M, F) whose one output has slopes ``slope`` (M,)."""
    room = np.empty((3, TOGETHER, w[1].shape[0]), np.float32)
    turned = np.ascontiguousarray(w[2].T), np.ascontiguousarray(w[4].T)
    for first in range(0, len(x), TOGETHER):
        last = min(first + TOGETHER, len(x))
        one, two, spare = room[0, : last - first], room[1, : last - first], room[2, : last - first]
        hidden(x[first:last], w, one, two)
        backward(x[first:last], one, two, slope[first:last].reshape(last - first, 1), w, turned, spare, d)
