"""Prequal, compiled: probes tell how many requests a replica has and how long they take now; hot ones are avoided.

With each request a dispatcher probes a few replicas at random, asynchronously: the answers serve its next requests.
Probes with more requests in flight than a quantile of all that it holds are hot. Of the cold ones the least latency is
taken, of hot ones alone the fewest requests. Where its probes are too old a request waits for new ones, at no cost
here.

Source: Wydrowski, Kleinberg, Rumble and Archer (2024), "Load is not what you should balance: introducing Prequal".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Float, Int
from games.lean import INLINE, INNER
from hybridalloc.problems.balancer.chance import below
from hybridalloc.problems.balancer.core import copied
from hybridalloc.problems.balancer.sim import LATE_AT, NOW

POOL, PROBES, PROBE_S = 16, 3, 1.0  # kept, sent with a request, and s for which one is good
REUSED = 4  # requests that one probe may serve
LEAST = 2  # probes below which new ones are waited for, as in the paper's synchronous mode
HOT = 1e9  # s: any hot probe is worse than any cold one
REPLICA, THERE, LATENCY_S, AT = range(4)


class Probes(NamedTuple):
    """What D dispatchers hold."""

    probe: Float  # (D, POOL, 4)
    used: Int  # (D, POOL) requests served
    held: Int  # (D, 2) how many, and how often one was dropped


def new_probes(dispatchers: int) -> Probes:
    """None yet."""
    d = dispatchers
    return Probes(np.zeros((d, POOL, 4)), np.zeros((d, POOL), np.int64), np.zeros((d, 2), np.int64))


@njit(**INNER)
def prequal(sim, d, view, share, rule, probes, stream):
    """The replica for dispatcher d's request. ``rule.a`` is the quantile; requests are divided by capacity where
    ``rule.capacity`` says."""
    probe, used, held, now = probes.probe[d], probes.used[d], probes.held[d], sim.clock[NOW]
    _drop_old(probe, used, held, now, view)
    if held[0] < LEAST:  # too long ago: it waits for answers this once
        _probe(sim.replicas, sim.lines, now, probe, used, held, stream)
    if held[0] == 0:
        picked = _anyone(view.up, stream)
    else:
        at = _best(probe, held[0], share, rule)
        picked = int(probe[at, REPLICA])
        probe[at, THERE] += 1.0
        used[at] += 1
        if held[0] > POOL // 2:
            _drop_worst(probe, used, held)
    _probe(sim.replicas, sim.lines, now, probe, used, held, stream)
    return picked


@njit(**INLINE)
def _probe(replicas, lines, now, probe, used, held, stream):
    """Ask a few at random; those that are down do not answer."""
    for _ in range(PROBES):
        r = below(stream, len(replicas))
        if replicas.up[r]:
            _answer(replicas, lines, r, now, probe, used, held)


@njit(**INLINE)
def _drop_old(probe, used, held, now, view):
    """What is too old, has served enough, or is of a replica that is down."""
    kept = 0
    for p in range(held[0]):
        if now - probe[p, AT] <= PROBE_S and used[p] < REUSED and view.up[int(probe[p, REPLICA])]:
            copied(probe[kept], probe[p])
            used[kept] = used[p]
            kept += 1
    held[0] = kept


@njit(**INLINE)
def _anyone(up, stream):
    """One that is up, at random; -1 where none is."""
    alive = 0
    for r in range(len(up)):
        alive += up[r]
    left, found = below(stream, max(alive, 1)), -1
    for r in range(len(up)):
        if up[r]:
            if left == 0:
                found = r
            left -= 1
    return found


@njit(**INLINE)
def _load(probe, p, share, rule):
    """Requests in flight by a probe, over capacity where that counts."""
    return probe[p, THERE] / (share[int(probe[p, REPLICA])] * len(share) if rule.capacity > 0 else 1.0)


@njit(**INLINE)
def _best(probe, n, share, rule):
    """The best of n probes."""
    rank, hot = max(1, min(int(np.ceil(rule.a * n)), n)), np.inf
    for p in range(n):
        mine, within = _load(probe, p, share, rule), 0
        for q in range(n):
            within += _load(probe, q, share, rule) <= mine
        if within >= rank:
            hot = min(hot, mine)
    least, found = np.inf, 0
    for p in range(n):
        mine = _load(probe, p, share, rule)
        value = probe[p, LATENCY_S] if mine <= hot else HOT + mine
        if value < least:
            least, found = value, p
    return found


@njit(**INLINE)
def _drop_worst(probe, used, held):
    """In turns the oldest, and the one with the most requests."""
    worst = 0
    held[1] += 1
    for p in range(held[0]):
        if held[1] % 2 == 0:
            worst = p if probe[p, AT] < probe[worst, AT] else worst
        else:
            worst = p if probe[p, THERE] > probe[worst, THERE] else worst
    held[0] -= 1
    copied(probe[worst], probe[held[0]])
    used[worst] = used[held[0]]


@njit(**INLINE)
def _answer(replicas, lines, r, now, probe, used, held):
    """Replica r's answer to a probe; where the pool is full the oldest makes room."""
    p = held[0]
    if p == POOL:
        p = 0
        for k in range(POOL):
            p = k if probe[k, AT] < probe[p, AT] else p
    else:
        held[0] += 1
    there = replicas.tail[r] - replicas.head[r] + replicas.runs[r] + replicas.joins[r]
    probe[p, REPLICA], probe[p, THERE], probe[p, AT] = r, there, now
    probe[p, LATENCY_S] = _latency(lines.first_s[r], there)
    used[p] = 0


@njit(**INLINE)
def _latency(first_s, there):
    """s to the first token of who came when about so many were there, of the nearest number that was seen."""
    at, found = min(there // 2, LATE_AT - 1), 0.0
    for far in range(LATE_AT):
        if found == 0.0 and at - far >= 0:
            found = first_s[at - far]
        if found == 0.0 and at + far < LATE_AT:
            found = first_s[at + far]
    return found
