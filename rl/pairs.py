r"""The pair scorer compiled: scores, and the gradient of what is learned from them, without a tensor library.

Per pair, z = relu(own_i + P pair + shared_r), y = relu(M z + m), score = w y + b: a few hundred numbers in and out, so
a tensor library spends its time moving (M, O, H) intermediates through memory. Here a few agents' pairs at a time go
all the way: features, scores, what is executed, the loss's slope, and back. float32 throughout; the same sums as
:class:`rl.networks.PairScorer` in another order. Weights are (inputs, outputs).

Source of recomputing instead of keeping: Chen et al. (2016), "Training deep nets with sublinear memory cost".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
BLOCK = 32  # agents at a time: their pairs' intermediates fit the second-level cache
ZERO, ONE = np.float32(0.0), np.float32(1.0)
CLIPPED, PLAIN = 0, 1  # what is ascended: the clipped ratio times the advantage, the log-density times it
FIGURES = ("gain", "entropy", "kl", "clipped", "entropy_mode", "entropy_server", "able", "home")
RULES = {"contract", "reassoc", "nsz"}  # of floating-point arithmetic that the compiler may bend


class Scorer(NamedTuple):
    """Weights of what is beyond an agent's own and the shared part: P pair features, H hidden, M mixed."""

    pair: Float32  # (P, H)
    mix: Float32  # (H, M)
    mix_bias: Float32  # (M,)
    out: Float32  # (M,)
    out_bias: Float32  # (1,)
    scale: np.float32


LINEAR = ("pair.weight", "mix.weight", "mix.bias", "out.weight", "out.bias")


def scorer_of(weights: Mapping[str, NDArray[Any]], scale: float = 1.0) -> Scorer:
    """The scorer of ``LINEAR`` weights as torch's Linear has them: pair (H, P), mix (M, H), out (1, M).

    Raises:
        ValueError: shapes that do not fit each other; compiled code would read beyond them.
    """
    pair, mix, mix_bias, out, out_bias = (weights[name] for name in LINEAR)
    shapes = tuple(x.shape for x in (pair, mix, mix_bias, out, out_bias))
    hidden, mixed = pair.shape[0], mix.shape[0]
    if shapes != (pair.shape, (mixed, hidden), (mixed,), (1, mixed), (1,)):
        raise ValueError(f"a scorer's weights have shapes {shapes}; they must fit each other")
    f = lambda x: np.ascontiguousarray(x, np.float32)
    return Scorer(f(pair.T), f(mix.T), f(mix_bias), f(out[0]), f(out_bias), np.float32(scale))


class Slopes(NamedTuple):
    """Gradients, added up: of K agents' own parts, the shared parts of B rows, and the weights."""

    own: Float32  # (K, H)
    shared: Float32  # (B, O, H)
    pair: Float32
    mix: Float32  # (M, H): as (outputs, inputs)
    mix_bias: Float32
    out: Float32
    out_bias: Float32


def no_slopes(agents: int, rows: int, options: int, w: Scorer) -> Slopes:
    """All 0."""
    f = lambda *shape: np.zeros(shape, np.float32)
    hidden, mixed = w.mix.shape
    return Slopes(
        f(agents, hidden), f(rows, options, hidden), f(*w.pair.shape), f(mixed, hidden), f(mixed), f(mixed), f(1)
    )


@njit(cache=True, error_model="numpy", fastmath=RULES)
def forward(x, own, shared, row, w, z, y):
    """Fill z (pairs, H) and y (pairs, M) of the agents whose pairs are ``x`` (pairs, P)."""
    options = len(x) // len(own)
    np.dot(x, w.pair, z)
    for i in range(len(own)):
        for o in range(options):
            here, base, there = z[i * options + o], own[i], shared[row[i], o]
            for h in range(len(here)):
                here[h] = max(here[h] + base[h] + there[h], ZERO)
    np.dot(z, w.mix, y)
    for r in range(len(y)):
        here = y[r]
        for h in range(len(here)):
            here[h] = max(here[h] + w.mix_bias[h], ZERO)


@njit(cache=True, error_model="numpy", fastmath=RULES)
def backward(x, z, y, s, row, w, mix, spare, d, first):
    """Add to ``d`` the gradients of pairs whose unscaled scores have slopes ``s`` (pairs,); y and ``spare`` are lost.
    The agents are those from ``first`` on of ``d.own``; ``mix`` is ``w.mix`` turned."""
    agents = len(row)
    options, size, mixed = len(s) // agents, z.shape[1], y.shape[1]
    part = np.dot(s, y)
    for h in range(mixed):
        d.out[h] += part[h]
    for r in range(len(s)):  # y is done with: from here on it is its own gradient
        here = y[r]
        for h in range(mixed):
            here[h] = s[r] * w.out[h] if here[h] > ZERO else ZERO
        for h in range(mixed):
            d.mix_bias[h] += here[h]
        d.out_bias[0] += s[r]
    add(d.mix, np.dot(y.T, z))
    np.dot(y, mix, spare)
    for i in range(agents):
        mine = d.own[first + i]
        for o in range(options):
            r = i * options + o
            here, there, common = spare[r], z[r], d.shared[row[i], o]
            for h in range(size):
                here[h] = here[h] if there[h] > ZERO else ZERO
            for h in range(size):
                mine[h] += here[h]
            for h in range(size):
                common[h] += here[h]
    add(d.pair, np.dot(x.T, spare))


@njit(cache=True)
def add(total, part):
    """Add ``part`` to ``total``, both (A, B)."""
    for a in range(total.shape[0]):
        for b in range(total.shape[1]):
            total[a, b] += part[a, b]


@njit(cache=True, error_model="numpy", nogil=True)
def scores(own, pair, shared, row, w, out):
    """Fill ``out`` (K, O) with the unscaled scores of K agents' pairs (K, O, P)."""
    agents, options = out.shape
    z_room = np.empty((BLOCK * options, w.mix.shape[0]), np.float32)
    y_room = np.empty((BLOCK * options, w.mix.shape[1]), np.float32)
    for first in range(0, agents, BLOCK):
        last = min(first + BLOCK, agents)
        many = (last - first) * options
        x = pair[first:last].reshape(many, pair.shape[2])
        forward(x, own[first:last], shared, row[first:last], w, z_room[:many], y_room[:many])
        out[first:last] = (np.dot(y_room[:many], w.out) + w.out_bias[0]).reshape(last - first, options)


@njit(cache=True, error_model="numpy", nogil=True)
def propose(agent, resource, pair, live, resource_of, own_weight, own_bias, shared_weight, w, scale, out):
    """Fill ``out`` (E, N, O), 0 before, with ``scale`` times the scores of live agents' pairs; an observation's arrays,
    see :class:`rl.proposal.Observation`, and weights as torch's Linear has them but for ``w``."""
    networks, n, options, features = pair.shape
    hidden = len(own_bias)
    mine, theirs = np.ascontiguousarray(own_weight.T), np.ascontiguousarray(shared_weight.T)
    x_room = np.empty((BLOCK * options, features), np.float32)
    z_room, y_room = (
        np.empty((BLOCK * options, hidden), np.float32),
        np.empty((BLOCK * options, len(w.out)), np.float32),
    )
    x_own, own, who = (
        np.empty((BLOCK, agent.shape[2]), np.float32),
        np.empty((BLOCK, hidden), np.float32),
        np.empty(BLOCK, np.int64),
    )
    shared, row = np.zeros((1, options, hidden), np.float32), np.zeros(BLOCK, np.int64)
    for e in range(networks):
        rows = np.dot(resource[e], theirs)
        for o in range(options):
            if resource_of[o] >= 0:
                for h in range(hidden):
                    shared[0, o, h] = rows[resource_of[o], h]
        i = 0
        while i < n:
            many = 0
            while i < n and many < BLOCK:
                if live[e, i]:
                    who[many] = i
                    x_own[many] = agent[e, i]
                    x_room[many * options : (many + 1) * options] = pair[e, i]
                    many += 1
                i += 1
            if many == 0:
                break
            np.dot(x_own[:many], mine, own[:many])
            for k in range(many):
                for h in range(hidden):
                    own[k, h] += own_bias[h]
            z, y = z_room[: many * options], y_room[: many * options]
            forward(x_room[: many * options], own[:many], shared, row[:many], w, z, y)
            score = np.dot(y, w.out)
            for k in range(many):
                for o in range(options):
                    out[e, who[k], o] = (score[k * options + o] + w.out_bias[0]) * scale


@njit(cache=True, error_model="numpy")
def slopes(slope, own, pair, shared, row, w, d):
    """Add to ``d`` the gradients of K agents' pairs whose unscaled scores have slopes ``slope`` (K, O)."""
    agents, options = slope.shape
    hidden, mixed = w.mix.shape
    room = np.empty((2, BLOCK * options, hidden), np.float32)
    y_room = np.empty((BLOCK * options, mixed), np.float32)
    mix = np.ascontiguousarray(w.mix.T)
    for first in range(0, agents, BLOCK):
        last = min(first + BLOCK, agents)
        many = (last - first) * options
        x, y = pair[first:last].reshape(many, pair.shape[2]), y_room[:many]
        forward(x, own[first:last], shared, row[first:last], w, room[0, :many], y)
        s = slope[first:last].reshape(many)
        backward(x, room[0, :many], y, s, row[first:last], w, mix, room[1, :many], d, first)


@njit(cache=True, error_model="numpy")
def exponential(x, power, out):
    """Fill ``out`` (K,) with e^x (K,), to 2 units in the last place; below e^-87 it is that. ``power`` is room, int32.

    2^n e^r with n whole and |r| <= log(2) / 2, e^r by its polynomial: plain arithmetic, eight or sixteen at a time.
    """
    for k in range(len(x)):
        here = x[k]
        here = np.float32(-87.0) if here < np.float32(-87.0) else here
        here = np.float32(88.0) if here > np.float32(88.0) else here
        n = np.floor(here * np.float32(1.44269504) + np.float32(0.5))
        r = here - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
        total = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
        total = total * r + np.float32(8.3334519073e-3)
        total = total * r + np.float32(4.1665795894e-2)
        total = total * r + np.float32(1.6666665459e-1)
        total = total * r + np.float32(5.0000001201e-1)
        out[k] = total * r * r + r + ONE
        power[k] = (np.int32(n) + np.int32(127)) << np.int32(23)  # the bits of 2^n
    whole = power.view(np.float32)
    for k in range(len(x)):
        out[k] *= whole[k]


@njit(cache=True, error_model="numpy", fastmath=RULES)
def _execute(score, at, agent, bias, allowed, w, limit, raw, log, chance, power, top, entropy):
    """What some agents execute: log softmax of the clipped log-prior plus the game's part, of their options.

    Args:
        score: (K O,) unscaled. at, agent: (K,), where they are in bias and allowed (B, N, O).
        raw, log, chance: (K O,), filled: scores, log-densities (where allowed) and densities. power: (K O,) room.
        top, entropy: (K,), filled: the highest allowed score; the entropy.
    """
    options = bias.shape[2]
    for k in range(len(at)):
        e, i, base = at[k], agent[k], k * options
        best, most = np.float32(-np.inf), np.float32(-np.inf)
        for o in range(options):
            raw[base + o] = w.scale * (score[base + o] + w.out_bias[0])
            if allowed[e, i, o]:
                best = max(best, raw[base + o])
        for o in range(options):
            log[base + o] = max(raw[base + o] - best, -limit) + bias[e, i, o]
            if allowed[e, i, o]:
                most = max(most, log[base + o])
        for o in range(options):
            log[base + o] -= most
        top[k] = best
    exponential(log, power, chance)
    for k in range(len(at)):
        e, i, base = at[k], agent[k], k * options
        total, spread = ZERO, ZERO
        for o in range(options):
            chance[base + o] = chance[base + o] if allowed[e, i, o] else ZERO
            total += chance[base + o]
        norm, share = np.log(total), ONE / total
        for o in range(options):
            chance[base + o] *= share
            log[base + o] -= norm
            spread -= chance[base + o] * log[base + o] if allowed[e, i, o] else ZERO
        entropy[k] = spread


@njit(cache=True, error_model="numpy", fastmath=RULES)
def _heads(log, chance, allowed, away, figures):
    """Note the entropies of the mode (no resource, or any) and of the resource given one is used."""
    total, within = ZERO, ZERO
    able = home = False
    for o in range(len(log)):
        if allowed[o]:
            if away[o]:
                able = True
                total += chance[o]
                within -= chance[o] * log[o]
            else:
                home = True
    if able:
        figures[6] += ONE
        figures[7] += ONE if home else ZERO
        if total > ZERO:
            some = np.log(total)
            figures[5] += within / total + some
            figures[4] -= total * some
        if home and total < ONE:
            figures[4] -= (ONE - total) * np.log(ONE - total)


@njit(cache=True, error_model="numpy", fastmath=RULES, nogil=True)
def learn(own, pair, shared, at, agent, row, bias, allowed, option, old, advantage, away, w, kind, limit, clip, entropy,
          d, figures):  # fmt: skip
    """Add to ``d`` the gradient of the mean loss -gain - ``entropy`` H over K live agents; note ``FIGURES``, summed.

    Args:
        own: (K, H). pair, bias, allowed: (B, N, O, ...), option, old, advantage: (B, N): of the whole rollout, of which
            the agents are ``agent`` (K,) of rows ``at`` (K,). shared: (b, O, H) of the part's rows, theirs is ``row``.
        away: (O,) options that use a resource. kind: ``CLIPPED`` or ``PLAIN``.
    """
    agents, options = len(at), pair.shape[2]
    hidden, mixed = w.mix.shape
    x_room = np.empty((BLOCK * options, pair.shape[3]), np.float32)
    room = np.empty((2, BLOCK * options, hidden), np.float32)
    y_room, s_room = np.empty((BLOCK * options, mixed), np.float32), np.empty(BLOCK * options, np.float32)
    heads, each = np.empty((3, BLOCK * options), np.float32), np.empty((2, BLOCK), np.float32)
    power_room = np.empty(BLOCK * options, np.int32)
    mix = np.ascontiguousarray(w.mix.T)
    share, scale = ONE / np.float32(agents), np.float32(w.scale)
    for first in range(0, agents, BLOCK):
        last = min(first + BLOCK, agents)
        many = (last - first) * options
        x, z, y, s = x_room[:many], room[0, :many], y_room[:many], s_room[:many]
        for k in range(first, last):
            x[(k - first) * options : (k - first + 1) * options] = pair[at[k], agent[k]]
        forward(x, own[first:last], shared, row[first:last], w, z, y)
        raw, log, chance, power = heads[0, :many], heads[1, :many], heads[2, :many], power_room[:many]
        top, entropies = each[0], each[1]
        _execute(
            np.dot(y, w.out), at[first:last], agent[first:last], bias, allowed, w, limit, raw, log, chance, power, top,
            entropies,
        )  # fmt: skip
        for k in range(first, last):
            e, i = at[k], agent[k]
            base, spread = (k - first) * options, entropies[k - first]
            taken, a = option[e, i], advantage[e, i]
            change = log[base + taken] - old[e, i]
            ratio = np.exp(change)
            if kind == CLIPPED:
                near = min(max(ratio, ONE - clip), ONE + clip)
                gain = min(ratio * a, near * a)
                slope = -ratio * a * share if ratio * a <= near * a else ZERO
            else:
                gain = log[base + taken] * a
                slope = -a * share
            figures[0] += gain
            figures[1] += spread
            figures[2] += ratio - ONE - change
            figures[3] += ONE if abs(ratio - ONE) > clip else ZERO
            end = base + options
            _heads(log[base:end], chance[base:end], allowed[e, i], away, figures)
            for o in range(options):
                down = ZERO
                if allowed[e, i, o] and raw[base + o] - top[k - first] >= -limit:
                    down = chance[base + o] * (entropy * share * (log[base + o] + spread) - slope)
                    if o == taken:
                        down += slope
                s[base + o] = down * scale
        backward(x, z, y, s, row[first:last], w, mix, room[1, :many], d, first)


@njit(cache=True, error_model="numpy", fastmath=RULES, nogil=True)
def densities(own, pair, shared, at, agent, row, bias, allowed, option, w, limit, out):
    """Fill ``out`` (K,) with the executed log-densities of what K live agents did; arguments as in :func:`learn`."""
    agents, options = len(at), pair.shape[2]
    x_room = np.empty((BLOCK * options, pair.shape[3]), np.float32)
    z_room = np.empty((BLOCK * options, w.mix.shape[0]), np.float32)
    y_room = np.empty((BLOCK * options, w.mix.shape[1]), np.float32)
    heads, each = np.empty((3, BLOCK * options), np.float32), np.empty((2, BLOCK), np.float32)
    power = np.empty(BLOCK * options, np.int32)
    for first in range(0, agents, BLOCK):
        last = min(first + BLOCK, agents)
        many = (last - first) * options
        x = x_room[:many]
        for k in range(first, last):
            x[(k - first) * options : (k - first + 1) * options] = pair[at[k], agent[k]]
        forward(x, own[first:last], shared, row[first:last], w, z_room[:many], y_room[:many])
        _execute(
            np.dot(y_room[:many], w.out), at[first:last], agent[first:last], bias, allowed, w, limit, heads[0, :many],
            heads[1, :many], heads[2, :many], power[:many], each[0], each[1],
        )  # fmt: skip
        for k in range(first, last):
            out[k] = heads[1, (k - first) * options + option[at[k], agent[k]]]


@njit(cache=True, error_model="numpy", fastmath=RULES, nogil=True)
def summarise(agent, pair, out):
    """Fill ``out`` (E, N, A + 3 P): an agent's features, and the mean, least and greatest of its pairs'."""
    networks, n, options, p = pair.shape
    a = agent.shape[2]
    for e in range(networks):
        for i in range(n):
            here = out[e, i]
            here[:a] = agent[e, i]
            mean, least, most = here[a : a + p], here[a + p : a + 2 * p], here[a + 2 * p :]
            for f in range(p):
                mean[f] = least[f] = most[f] = pair[e, i, 0, f]
            for o in range(1, options):
                one = pair[e, i, o]
                for f in range(p):
                    mean[f] += one[f]
                    least[f] = min(least[f], one[f])
                    most[f] = max(most[f], one[f])
            for f in range(p):
                mean[f] /= np.float32(options)
