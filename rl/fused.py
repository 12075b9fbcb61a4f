r"""The pair scorer's forward and backward pass compiled as one: what a pair needs stays in the cache.

Per pair, z = relu(own_i + P pair + shared_r), y = relu(M z + m), score = w y + b: a few hundred numbers in and out, so
a tensor library spends its time moving (M, O, H) intermediates through memory. Here a few agents' pairs at a time go
all the way, and the backward pass computes them again instead of keeping them. :func:`score` is differentiable once,
in all but the pairs' features; the same sums as :class:`rl.networks.PairScorer` in another order.

Source of recomputing instead of keeping: Chen et al. (2016), "Training deep nets with sublinear memory cost".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

BLOCK = 32  # agents at a time: their pairs' intermediates fit the second-level cache
ZERO = np.float32(0.0)


@njit(cache=True, error_model="numpy")
def _hidden(first, last, own, pair, shared, row, w_pair, w_mix, b_mix, z, y):
    """Fill z and y (pairs, H) of agents ``first`` to ``last``; weights are (inputs, outputs). Returns their pairs."""
    options = pair.shape[1]
    x = pair[first:last].reshape((last - first) * options, pair.shape[2])
    np.dot(x, w_pair, z)
    for i in range(first, last):
        for o in range(options):
            here, base, there = z[(i - first) * options + o], own[i], shared[row[i], o]
            for h in range(len(here)):
                here[h] = max(here[h] + base[h] + there[h], ZERO)
    np.dot(z, w_mix, y)
    for r in range(len(y)):
        here = y[r]
        for h in range(len(here)):
            here[h] = max(here[h] + b_mix[h], ZERO)
    return x


@njit(cache=True, error_model="numpy")
def _forward(own, pair, shared, row, w_pair, w_mix, b_mix, w_out, b_out, out):
    agents, options = out.shape
    size = len(b_mix)
    room = np.empty((2, BLOCK * options, size), np.float32)
    for first in range(0, agents, BLOCK):
        last = min(first + BLOCK, agents)
        many = (last - first) * options
        z, y = room[0, :many], room[1, :many]
        _hidden(first, last, own, pair, shared, row, w_pair, w_mix, b_mix, z, y)
        out[first:last] = (np.dot(y, w_out) + b_out[0]).reshape(last - first, options)


@njit(cache=True, error_model="numpy")
def _backward(
    slope, own, pair, shared, row, w_pair, w_mix, mix, b_mix, w_out, d_own, d_shared, d_pair, d_mix, d_b, d_w
):
    """Add the gradients; ``mix`` is ``w_mix`` as (outputs, inputs), as is ``d_mix``; ``d_pair`` is (P, H)."""
    agents, options = slope.shape
    size = len(b_mix)
    room = np.empty((3, BLOCK * options, size), np.float32)
    for first in range(0, agents, BLOCK):
        last = min(first + BLOCK, agents)
        many = (last - first) * options
        z, y, dz = room[0, :many], room[1, :many], room[2, :many]
        x = _hidden(first, last, own, pair, shared, row, w_pair, w_mix, b_mix, z, y)
        s = slope[first:last].reshape(many)
        d_w += np.dot(s, y)
        for r in range(many):  # y is done with: from here on it is its own gradient
            here = y[r]
            for h in range(size):
                here[h] = s[r] * w_out[h] if here[h] > ZERO else ZERO
            for h in range(size):
                d_b[h] += here[h]
        d_mix += np.dot(y.T, z)
        np.dot(y, mix, dz)
        for i in range(first, last):
            for o in range(options):
                r = (i - first) * options + o
                here, there = dz[r], z[r]
                for h in range(size):
                    here[h] = here[h] if there[h] > ZERO else ZERO
                there = d_own[i]
                for h in range(size):
                    there[h] += here[h]
                there = d_shared[row[i], o]
                for h in range(size):
                    there[h] += here[h]
        d_pair += np.dot(x.T, dz)


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        own, pair, shared, row, w_pair, w_mix, b_mix, w_out, b_out = (p.detach().contiguous().numpy() for p in parts)
        out = np.empty(pair.shape[:2], np.float32)
        turned = np.ascontiguousarray(w_pair.T), np.ascontiguousarray(w_mix.T)
        _forward(own, pair, shared, row, *turned, b_mix, w_out[0], b_out, out)
        ctx.arrays = (own, pair, shared, row, *turned, w_mix, b_mix, w_out[0])
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        slope = slopes[0].contiguous().numpy()
        own, pair, shared, row, w_pair, turned, w_mix, b_mix, w_out = ctx.arrays
        d_own, d_shared, d_pair, d_mix, d_b, d_w = (
            np.zeros_like(a) for a in (own, shared, w_pair, w_mix, b_mix, w_out)
        )
        _backward(
            slope, own, pair, shared, row, w_pair, turned, w_mix, b_mix, w_out, d_own, d_shared, d_pair, d_mix, d_b, d_w
        )
        t = torch.from_numpy
        d_bias = slopes[0].sum().reshape(1)
        return t(d_own), None, t(d_shared), None, t(d_pair.T), t(d_mix), t(d_b), t(d_w)[None], d_bias


def score(
    own: Tensor, pair: Tensor, shared: Tensor, row: Tensor, w_pair: Tensor, w_mix: Tensor, b_mix: Tensor,
    w_out: Tensor, b_out: Tensor,
) -> Tensor:  # fmt: skip
    """(M, O) from own (M, H), pair (M, O, P), shared (B, O, H), row (M,); weights as torch's Linear has them."""
    return _Score.apply(own, pair, shared, row, w_pair, w_mix, b_mix, w_out, b_out)
