r"""Quadratic games on a tree: levels that share the branches to a root, and limits on what they add up to along them.

N agents have one level each, agent i at node :math:`n_i` of a tree of B nodes. What an agent pays for the branches of
its path is by all levels below them, and beside that it has a cost of its own,

.. math:: F_i(x) = d_i x_i + q_i + \sum_{b \in path(n_i)} c_b \sum_{j \text{ below } b} x_j ,

so :math:`J = C + diag(d)` with :math:`C_{ij}` the cost of the branches that the paths to i and j share: symmetric, a
game with a potential. Each node has a value, and limits on it that give (:mod:`games.quadratic`):

.. math:: s_k = o_k \sum_{b \in path(k)} e_b \sum_{j \text{ below } b} g_j x_j, \qquad low_k \le s_k \le high_k .

As matrices, J is N x N and the limits are 2 B x N: a hundred megabytes for a thousand agents at five thousand nodes. On
the tree a product with either is one sweep up and one down it, and the equations of a step are eliminated in two more.
Solver: from within the boxes (:mod:`games.tree_interior`), then projected Newton (:mod:`games.tree_newton`).
Elimination wants d to be some 1e-5 of a level's whole curvature, else a game may not converge, and says so.
:meth:`TreeBatch.dense` writes the matrices out, for who wants to compare.

Source: Rosen (1965) for the equilibrium; Farivar and Low (2013) for the feeder whose resistances make such a C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from games.congestion import Bool, Float, Int
from games.errors import InvalidGameError
from games.lean import ROOMY
from games.quadratic_batch import TOLERANCE, QuadraticBatch, Solution, weights
from games.tree_interior import from_within
from games.tree_newton import descend_tree


class TreeBatch(NamedTuple):
    """E games on one tree; :func:`tree_batch` checks. One level an agent, D = 1, with the axis kept.

    parent (B,): parents come first, the root is 0 and its own parent. place (N,): the agents' nodes. cost, effect (B,):
    c >= 0 and e of the branch to the parent, the root's not read. diagonal, linear, lower, upper, inner (E, N, 1): d,
    q, the box, g. outer, low, high, give (E, B): o, the limits, inf for none, and what they give, > 0. live (E, N).
    """

    parent: Int
    place: Int
    cost: Float
    effect: Float
    diagonal: Float
    linear: Float
    lower: Float
    upper: Float
    inner: Float
    outer: Float
    low: Float
    high: Float
    give: Float
    live: Bool

    def single(self, e: int) -> TreeBatch:
        """Game ``e`` by itself, a batch of one."""
        return self._replace(**{name: getattr(self, name)[e : e + 1] for name in self._fields[4:]})

    def dense(self) -> QuadraticBatch:
        """The same games as matrices: limits on what is above ``high`` first, then those on what is below ``low``."""
        e, n = self.live.shape
        unit = np.broadcast_to(np.eye(n), (n, n))
        paths = _along(self.parent, self.cost * _below(self.parent, self.place, unit))[:, self.place]
        jacobian = np.repeat(paths[None], e, 0)
        jacobian[:, np.arange(n), np.arange(n)] += self.diagonal[..., 0]
        reach = _along(self.parent, self.effect * _below(self.parent, self.place, unit)).T
        rows = self.outer[..., None] * reach * self.inner[:, None, :, 0]
        return QuadraticBatch(
            jacobian, self.linear, self.lower, self.upper, np.concatenate([rows, -rows], axis=1),
            np.concatenate([self.high, -self.low], axis=1), self.live, np.concatenate([self.give, self.give], axis=1),
        )  # fmt: skip

    def gradient(self, level: Float) -> Float:
        """(E, N, 1) each agent's gradient in its own level, at joint levels (E, N, 1), limits left out."""
        return np.asarray(self._bent(level[..., 0])[..., None] + self.linear)

    def _bent(self, x: Float) -> Float:
        """(E, N) J x."""
        paths = _along(self.parent, self.cost * _below(self.parent, self.place, x))
        return np.asarray(paths[:, self.place] + self.diagonal[..., 0] * x)

    def _values(self, x: Float) -> Float:
        """(E, B) s."""
        drawn = _below(self.parent, self.place, self.inner[..., 0] * x)
        return np.asarray(self.outer * _along(self.parent, self.effect * drawn))

    def _pulled(self, amount: Float) -> Float:
        """(E, N) what ``amount`` (E, B) a unit of each node's value comes to for each level."""
        paths = _along(self.parent, self.effect * _below(self.parent, np.arange(len(self.parent)), self.outer * amount))
        return np.asarray(self.inner[..., 0] * paths[:, self.place])

    def own(self) -> Float:
        """(E, N, 1, 1) curvature of each agent's cost in its own level."""
        return np.asarray(
            (self.diagonal[..., 0] + _along(self.parent, self.cost[None])[:, self.place])[..., None, None]
        )

    def steepest(self) -> float:
        """The largest entry of J."""
        return float(self.own().max(initial=0.0))

    def charges(self, level: Float) -> Float:
        """(E, 2 B) prices of the limits at joint levels, in the order of :meth:`dense`."""
        s = self._values(level[..., 0])
        return np.concatenate([np.maximum(s - self.high, 0.0), np.maximum(self.low - s, 0.0)], axis=1) / np.concatenate(
            [self.give, self.give], axis=1
        )

    def value(self, level: Float) -> Float:
        """(E,) the exact potential, with what breaking limits costs."""
        x, charged = level[..., 0], self.charges(level)
        potential = (x * (self._bent(x) / 2 + self.linear[..., 0])).sum(axis=1)
        return np.asarray(potential + (np.concatenate([self.give, self.give], axis=1) * charged**2).sum(axis=1) / 2)

    def tilted(self, mean: Float, spread: Float, trust: float) -> TreeBatch:
        """Games on the same tree: see :func:`games.quadratic_batch.tilt_batch`."""
        weight = weights(spread) / trust
        return self._replace(
            diagonal=self.diagonal + weight, linear=self.linear - weight * np.where(weight > 0, mean, 0.0)
        )

    def shifted(self, at: Float) -> TreeBatch:
        """The same games in levels ``at`` (E, N, 1) further on: of steps from there, they are made ones of levels."""
        reach, box = self._values(at[..., 0]), (self.lower + at, self.upper + at)
        return self._replace(
            linear=self.linear - self._bent(at[..., 0])[..., None], lower=box[0], upper=box[1],
            low=self.low + reach, high=self.high + reach,
        )  # fmt: skip

    def project(self, point: Float, weight: Float, stop: Callable[[], bool] = lambda: False) -> Solution:
        """The nearest joint levels to ``point`` in the boxes: every limit gives, and holds nothing."""
        none = np.zeros(len(point))
        return Solution(
            np.clip(point, self.lower, self.upper), np.zeros((len(point), 2 * len(self.parent))), none, none == 0
        )

    def solve(
        self, start: Float | None = None, *, tolerance: float = TOLERANCE, stop: Callable[[], bool] = lambda: False
    ) -> Solution:
        """The variational equilibrium of each game; see :func:`games.quadratic_batch.solve_batch`. ``stop`` is asked
        before; where it says so, the start is given back as not solved. What is not solved from within is tried by
        Newton's method from the start."""
        parts = [part[..., 0] for part in (self.diagonal, self.linear, self.lower, self.upper, self.inner)]
        parts = [np.ascontiguousarray(part) for part in (*parts, self.outer, self.low, self.high, 1.0 / self.give)]
        x = np.zeros(self.live.shape) if start is None else np.array(start[..., 0], np.float64)
        x = np.clip(x, parts[2], parts[3])
        scale = self.own()[..., 0, 0]
        scale = np.where(scale > 0, scale, 1.0)  # at the root, of who has no cost of its own
        residual, tree = np.full(len(x), np.inf), (self.parent, self.place, self.cost, self.effect)
        for within in (True, False):
            left = np.flatnonzero(~(residual <= tolerance))
            if not len(left) or stop():
                break
            few, some = x[left], [part[left] for part in parts]
            for e in range(len(left) if within else 0):
                from_within(*tree, *(part[e] for part in some), scale[left[e]], few[e])
            descend_tree(*tree, *some, scale[left], 0.01 * tolerance, few)
            now = self._residual(left, few, scale)
            better = now <= residual[left]
            x[left[better]], residual[left[better]] = few[better], now[better]
        level = x[..., None]
        return Solution(level, self.charges(level), residual, residual <= tolerance)

    def _residual(self, which: Int, x: Float, scale: Float) -> Float:
        """(E',) of games ``which`` at levels (E', N), as in :func:`games.quadratic_batch.solve_batch`."""
        few = self._replace(**{name: getattr(self, name)[which] for name in self._fields[4:]})
        up, down = np.split(few.charges(x[..., None]), 2, axis=1)
        pull = few._bent(x) + few.linear[..., 0] + few._pulled(up - down)
        size = np.maximum(np.abs(x), (few._bent(np.abs(x)) + np.abs(few.linear[..., 0])) / scale[which])
        size = np.maximum(size, 1e-6 * size.max(axis=1, keepdims=True, initial=0.0))
        near = np.clip(x - pull / scale[which], few.lower[..., 0], few.upper[..., 0])
        gap = np.abs(x - near) / np.where(size > 0, size, 1.0)
        return np.asarray(np.where(np.isfinite(gap), gap, np.inf).max(axis=1, initial=0.0))

    def charged_more(self, centre: Float, step: Float) -> Float:
        """(E, N, O) what limits cost more where agent i alone moves from ``centre`` (E, N) by ``step`` (E, N, O)."""
        out = np.zeros(step.shape)
        over = self._values(centre)
        for e in range(len(out)):
            _charged_more(
                self.parent, self.place, self.effect, self.inner[e, :, 0], self.outer[e], over[e] - self.high[e],
                self.low[e] - over[e], 1.0 / self.give[e], step[e], out[e],
            )  # fmt: skip
        return out


def tree_batch(**fields: Any) -> TreeBatch:
    """A batch from arrays of the shapes in :class:`TreeBatch`, by name.

    Raises:
        InvalidGameError: names the array, index, value and what is permitted.
    """
    whole = ("parent", "place")
    game = TreeBatch(**{
        name: np.asarray(array, np.int64 if name in whole else bool if name == "live" else np.float64)
        for name, array in fields.items()
    })  # fmt: skip
    b, (e, n) = len(game.parent), game.live.shape
    for names, shape in (
        (("parent", "cost", "effect"), (b,)), (("place",), (n,)),
        (("diagonal", "linear", "lower", "upper", "inner"), (e, n, 1)), (("outer", "low", "high", "give"), (e, b)),
    ):  # fmt: skip
        for name in names:
            if getattr(game, name).shape != shape:
                raise InvalidGameError(f"{name} has shape {getattr(game, name).shape}; {shape} is needed")
    first = np.arange(b)
    rules: tuple[tuple[str, Bool, str], ...] = (
        ("parent", (game.parent >= 0) & ((game.parent < first) | (first == 0)), "a parent comes before its child"),
        ("place", (game.place >= 0) & (game.place < b), f"nodes are 0 to {b - 1}"),
        ("cost", (game.cost >= 0) & np.isfinite(game.cost), "it is finite and >= 0"),
        ("diagonal", (game.diagonal >= 0) & np.isfinite(game.diagonal), "it is finite and >= 0"),
        ("give", (game.give > 0) & np.isfinite(game.give), "it is finite and > 0: on a tree every limit gives"),
        ("low", game.low < np.inf, "it is a number, -inf for none"),
        ("high", game.high > -np.inf, "it is a number, inf for none"),
        ("upper", game.upper >= game.lower, "it is at least the lower bound"),
        ("upper", game.live[..., None] | (game.upper == game.lower), "it is the lower bound of who is not live"),
        *((name, np.isfinite(getattr(game, name)), "it is finite") for name in ("effect", "linear", "inner", "outer")),
    )
    for name, good, rule in rules:
        if not good.all():
            at = tuple(int(v) for v in np.argwhere(~good)[0])
            value = getattr(game, name)[at]
            raise InvalidGameError(f"{name}[{', '.join(map(str, at))}] = {value:g}; {rule}")
    return game


@njit(**ROOMY)
def _below(parent: Int, place: Int, amount: Float) -> Float:
    """(E, B) sum of ``amount`` (E, N) of what is placed at a node or below it."""
    out = np.zeros((len(amount), len(parent)))
    for e in range(len(amount)):
        for i in range(len(place)):
            out[e, place[i]] += amount[e, i]
        for k in range(len(parent) - 1, 0, -1):
            out[e, parent[k]] += out[e, k]
    return out


@njit(**ROOMY)
def _along(parent: Int, amount: Float) -> Float:
    """(E, B) sum of ``amount`` (E, B) over the branches of each node's path."""
    out = np.zeros(amount.shape)
    for e in range(len(amount)):
        for k in range(1, len(parent)):
            out[e, k] = out[e, parent[k]] + amount[e, k]
    return out


@njit(**ROOMY)
def _charged_more(parent, place, effect, inner, outer, above, beneath, weight, step, out):
    """Fill ``out`` (N, O); ``above`` and ``beneath`` (B,): by how much a value is over its limits."""
    b = len(parent)
    reach, on = np.zeros(b), np.zeros(b, np.bool_)
    for i in range(len(place)):
        on[:] = False
        k = place[i]
        while k:
            on[k] = True
            k = parent[k]
        for k in range(1, b):
            reach[k] = reach[parent[k]] + (effect[k] if on[k] else 0.0)
            gain = outer[k] * reach[k] * inner[i]
            before = max(above[k], 0.0) ** 2 + max(beneath[k], 0.0) ** 2
            for o in range(step.shape[1]):
                move = gain * step[i, o]
                after = max(above[k] + move, 0.0) ** 2 + max(beneath[k] - move, 0.0) ** 2
                out[i, o] += 0.5 * weight[k] * (after - before)
