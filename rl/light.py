r"""A small centralised critic, with its value loss compiled as one pass.

.. math:: V_i = w \cdot relu(C \, relu(A\, own_i + B\, [mean_j own_j, mean_r resource_r] + a) + c) + b

float32; some rows at a time go all the way, forth and back. torch's module is the reference, and what checkpoints hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.pairs import RULES, ZERO, add
from rl.proposal import Sizes

Float32 = NDArray[np.float32]
TOGETHER = 256  # agents at a time


class Weights(NamedTuple):
    """As arrays, (inputs, outputs)."""

    own: Float32  # (F, H)
    pooled: Float32  # (F + S, H)
    bias: Float32  # (H,)
    body: Float32  # (H, H)
    body_bias: Float32  # (H,)
    out: Float32  # (H,)
    out_bias: Float32  # (1,)


class LightCritic(nn.Module):
    """Centralised value of each agent: its own features, and the mean of all agents' and resources'."""

    def __init__(self, sizes: Sizes, hidden: int = 32) -> None:
        super().__init__()
        own = sizes.agent + 3 * sizes.pair
        self.own = nn.Linear(own, hidden, bias=False)
        self.pooled = nn.Linear(own + sizes.resource, hidden)
        self.body = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)
        for layer in (self.own, self.pooled, self.body):
            nn.init.orthogonal_(layer.weight, 2**0.5)
        nn.init.orthogonal_(self.out.weight, 0.1)
        for layer in (self.pooled, self.body, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, own: Tensor, resource: Tensor) -> Tensor:
        """(B, N) values from own (B, N, F) and resource (B, R, S)."""
        pool = torch.cat([own.mean(1), resource.mean(1)], -1)
        x = torch.relu(self.own(own) + self.pooled(pool)[:, None])
        return self.out(torch.relu(self.body(x)))[..., 0]

    def arrays(self) -> Weights:
        """The weights as they are, turned."""
        n = lambda p: np.ascontiguousarray(p.detach().numpy().T)
        return Weights(
            n(self.own.weight), n(self.pooled.weight), n(self.pooled.bias), n(self.body.weight), n(self.body.bias),
            n(self.out.weight)[:, 0], n(self.out.bias),
        )  # fmt: skip

    def values(self, own: Float32, resource: Float32) -> Float32:
        """:meth:`forward` compiled, of arrays."""
        out = np.empty(own.shape[:2], np.float32)
        none, rows = np.zeros((0, 0), np.float32), np.arange(len(own))
        w = self.arrays()
        _rows(own, _means(resource), rows, w, none, none, ZERO, ZERO, False, out, _zeros(w))
        return out

    def learn(
        self, own: Float32, resource: Float32, rows: Any, held: Float32, target: Float32, clip: float, huber: float
    ) -> float:
        """Set the gradients of the clipped value loss (:func:`rl.mappo.clipped_value_loss`) on ``rows`` of a rollout.

        Args:
            own: (B, N, F). resource: (B, R, S). held, target: (B, N).

        Returns:
            the loss.
        """
        w = self.arrays()
        d, out = _zeros(w), np.empty((0, 0), np.float32)
        loss = _rows(
            own, _means(resource), rows, w, held, target, np.float32(clip), np.float32(huber), True, out, d
        )  # fmt: skip
        t = torch.from_numpy
        turned = lambda x: t(np.ascontiguousarray(x.T))
        self.own.weight.grad, self.pooled.weight.grad, self.pooled.bias.grad = (
            turned(d.own),
            turned(d.pooled),
            t(d.bias),
        )
        self.body.weight.grad, self.body.bias.grad = turned(d.body), t(d.body_bias)
        self.out.weight.grad, self.out.bias.grad = t(d.out)[None], t(d.out_bias)
        return float(loss)


def _means(resource: Float32) -> Float32:
    return np.ascontiguousarray(resource.mean(axis=1))


def _zeros(w: Weights) -> Weights:
    return Weights(*(np.zeros_like(x) for x in w))


@njit(cache=True, error_model="numpy", fastmath=RULES)
def _rows(own, resource, rows, w, held, target, clip, huber, learning, out, d):
    """Values of ``rows``: filled in ``out`` (B, N), or learned from, the gradients of the mean loss added to ``d``; the
    loss. ``resource`` (B, S) are means."""
    n, features = own.shape[1], own.shape[2]
    hidden, shared = w.out.shape[0], resource.shape[1]
    many = max(TOGETHER // max(n, 1), 1)
    x_room = np.empty((many * n, features), np.float32)
    room = np.empty((3, many * n, hidden), np.float32)
    pool, common = np.empty((many, features + shared), np.float32), np.empty((many, hidden), np.float32)
    slope_room = np.empty(many * n, np.float32)
    body = np.ascontiguousarray(w.body.T)
    share = np.float32(1.0) / np.float32(max(len(rows) * n, 1))
    loss = 0.0
    for first in range(0, len(rows), many):
        count = min(many, len(rows) - first)
        x, one, two, three = x_room[: count * n], room[0, : count * n], room[1, : count * n], room[2, : count * n]
        for k in range(count):
            b = rows[first + k]
            pool[k] = ZERO
            for i in range(n):
                here = x[k * n + i]
                for f in range(features):
                    here[f] = own[b, i, f]
                for f in range(features):
                    pool[k, f] += here[f]
            for f in range(features):
                pool[k, f] /= np.float32(n)
            for f in range(shared):
                pool[k, features + f] = resource[b, f]
        np.dot(pool[:count], w.pooled, common[:count])
        np.dot(x, w.own, one)
        for k in range(count):
            base = common[k]
            for h in range(hidden):
                base[h] += w.bias[h]
            for i in range(n):
                here = one[k * n + i]
                for h in range(hidden):
                    here[h] = max(here[h] + base[h], ZERO)
        np.dot(one, w.body, two)
        for r in range(count * n):
            here = two[r]
            for h in range(hidden):
                here[h] = max(here[h] + w.body_bias[h], ZERO)
        value = np.dot(two, w.out)
        if not learning:
            for k in range(count):
                for i in range(n):
                    out[rows[first + k], i] = value[k * n + i] + w.out_bias[0]
            continue
        slope = slope_room[: count * n]
        for k in range(count):
            b = rows[first + k]
            for i in range(n):
                v = value[k * n + i] + w.out_bias[0]
                near = held[b, i] + min(max(v - held[b, i], -clip), clip)
                far, close = v - target[b, i], near - target[b, i]
                high, low = _huber(far, huber), _huber(close, huber)
                loss += max(high, low)
                moves = abs(v - held[b, i]) <= clip or high >= low
                slope[k * n + i] = min(max(far, -huber), huber) * share if moves else ZERO
        part = np.dot(slope, two)
        for h in range(hidden):
            d.out[h] += part[h]
        for r in range(count * n):
            here = two[r]
            d.out_bias[0] += slope[r]
            for h in range(hidden):
                here[h] = slope[r] * w.out[h] if here[h] > ZERO else ZERO
            for h in range(hidden):
                d.body_bias[h] += here[h]
        add(d.body, np.dot(one.T, two))
        np.dot(two, body, three)
        for k in range(count):
            base = common[k]
            base[:] = ZERO
            for i in range(n):
                here, there = three[k * n + i], one[k * n + i]
                for h in range(hidden):
                    here[h] = here[h] if there[h] > ZERO else ZERO
                for h in range(hidden):
                    base[h] += here[h]
            for h in range(hidden):
                d.bias[h] += base[h]
        add(d.own, np.dot(x.T, three))
        add(d.pooled, np.dot(pool[:count].T, common[:count]))
    return loss * share


@njit(cache=True, fastmath=RULES)
def _huber(x, width):
    """torch's Huber loss."""
    size = abs(x)
    return np.float32(0.5) * x * x if size <= width else width * (size - np.float32(0.5) * width)
