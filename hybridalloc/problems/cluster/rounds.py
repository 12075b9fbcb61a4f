r"""Rounds of a cluster of several kinds of GPUs: every six minutes it is decided anew who runs where, compiled.

A job of a gang of g runs on g GPUs of one kind or waits; whoever starts or changes its kind loses ``restart_s``. Rules
order the jobs, and each takes the fastest kind that has room:

- *fifo*, the oldest first, and nobody before it; *backfill*, the oldest first, others where it does not fit;
- *attained*, least GPU time so far first; *srtf*, shortest believed time left; *area*, that times the gang;
- *guard*, believed time left and gang weighed by powers, and whoever's finish-time ratio is about to exceed ``mark``
  moves forward: short jobs first until it would be unfair;
- *market*, no order: job i on kind j is worth v_ij, its relative speed there by the same weights, and places are held
  so that nobody gains by another that is free, no two would trade theirs, and nobody outside is worth more than whom
  it could take the place of. A job that is hardly slower elsewhere leaves the fast kind to who is;
- *shares*, Gavel's: parts of time x_ij (:mod:`.shares`), of which the pair furthest behind goes first.

A believed time left is what the job was believed to take less what it has done, and never less than a twentieth of
the belief: who is told to be short and is not keeps looking short, which is how misjudged durations hurt. With a
``doubt`` d it is the mean of what remains, were the truth the belief times a lognormal factor of spread d and is known
to exceed what was done: who overstays is believed to take longer and longer.

*market* plays what :mod:`games.packing` plays for the worlds of "gavel", by code of its own: a run of 300 jobs is some
3,000 rounds at .02 ms, compiled from end to end, which is what evolving its weights over whole runs takes, where a
round by the general game is some ms. Tests hold the two against each other.

Source: Narayanan et al. (2020), algorithm 1, for rounds and for *shares*.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from games.congestion import Float, Int
from games.lean import LEAN, ROOMY
from hybridalloc.problems.cluster.jobs import Jobs

ROUND_S = 360.0
RULES = ("fifo", "backfill", "attained", "srtf", "area", "guard", "market", "shares")
FIFO, BACKFILL, ATTAINED, SRTF, AREA, GUARD, MARKET, SHARES = range(len(RULES))
SWEEPS = 20  # of trades in a round
FLOOR = 0.05  # of a belief, that a job is always believed to have left
DONE = 1e-6  # of a job's steps
LONGEST = 2_000_000  # rounds
ROOT2 = 2.0**0.5
Shares = Callable[[Any], Float]


class Guard(NamedTuple):
    """Of the rules *guard* and *market*.

    Attributes:
        left, gang: powers of the believed hours left and of the gang by which a job is put back. weight: of a
            finish-time ratio that is about to exceed ``mark``. stay: what the kind that a job runs on already is worth,
            in its relative speed. some: what running at all is worth, in relative speed (*market* alone).
    """

    left: float = 1.0
    gang: float = 1.0
    weight: float = 20.0
    mark: float = 0.8
    stay: float = 0.0
    some: float = 0.0


GUARDED = Guard()
TRADING = Guard(0.3, -0.7, 2.8, 0.67, 0.0, 0.25)  # evolved on training seeds at loads of .7 to .95, durations known
DOUBTING = Guard(0.76, -0.65, 2.8, 0.41, 0.0, 0.0)  # the same, durations misjudged by a lognormal factor of spread 1


class Standing(NamedTuple):
    """Where J jobs stand: left (J,) steps, attained (J,) GPU seconds, spent (J, W) seconds on each kind since shares
    were last set, kind (J,) that each ran on in the last round (-1: none), ended (J,) s, nan until then; clock (1,) s;
    counts (4,): rounds, GPU seconds held and used, starts."""

    left: Float
    attained: Float
    spent: Float
    kind: Int
    ended: Float
    clock: Float
    counts: Float


class Told(NamedTuple):
    """What Gavel's programs are asked about: the jobs that are there (n,), with what is left and how old they are."""

    who: Int
    speed: Float
    gang: Int
    left: Float
    age_s: Float
    own_s: Float


class Run(NamedTuple):
    """What came of J jobs: completion (J,) s since arrival, ratio (J,) of that to its own part's; makespan_s; parts of
    GPU time held and used; mean number of jobs there; starts a job; decision_ms mean of a round."""

    completion_s: Float
    ratio: Float
    makespan_s: float
    held: float
    used: float
    active: float
    starts: float
    decision_ms: float


def run_rounds(
    jobs: Jobs,
    pools: Int,
    rule: str,
    *,
    believed: Float | None = None,
    own_s: Float | None = None,
    shares: Shares | None = None,
    guard: Guard = GUARDED,
    restart_s: float = 0.0,
    doubt: float = 0.0,
) -> Run:
    """Run jobs to their end under one rule.

    Args:
        pools: (W,) GPUs of each kind. believed: (J,) steps that each is believed to take, by default what it takes.
        own_s: (J,) what fairness is measured against, by default the time alone; no rule moves it.
        doubt: how far durations are thought to be misjudged. shares: of the rule *shares*: parts of time (n, W), asked
            for whenever jobs come or go.

    Raises:
        ValueError: an unknown rule, *shares* without any, or a gang larger than every pool that it runs on.
    """
    if rule not in RULES or (rule == "shares") != (shares is not None):
        raise ValueError(f"rule {rule!r} with {'no' if shares is None else 'given'} shares; one of {', '.join(RULES)}")
    n, w = jobs.speed.shape
    room = np.asarray(pools, np.int64)
    never = np.flatnonzero(((jobs.speed > 0) & (jobs.gang[:, None] <= room)).sum(1) == 0)
    if len(never):
        i = int(never[0])
        raise ValueError(f"job {i} takes {jobs.gang[i]} GPUs of a kind it runs on; pools are {room.tolist()}")
    at = Standing(
        jobs.steps.copy(), np.zeros(n), np.zeros((n, w)), np.full(n, -1), np.full(n, np.nan), np.zeros(1), np.zeros(4)
    )
    told = jobs.steps if believed is None else np.asarray(believed, np.float64)
    own = jobs.alone_s if own_s is None else np.asarray(own_s, np.float64)
    x, here, spent, began = np.zeros((n, w)), np.zeros(0, np.int64), 0.0, time.perf_counter()
    active = np.zeros(1)
    while np.isnan(at.ended).any():
        if shares is not None:
            here = np.flatnonzero((jobs.arrival_s <= at.clock[0]) & np.isnan(at.ended))
            if len(here):
                left = np.maximum(told[here] - (jobs.steps[here] - at.left[here]), FLOOR * told[here])
                seen = Told(
                    here, jobs.speed[here], jobs.gang[here], left, at.clock[0] - jobs.arrival_s[here], own[here]
                )
                x[:], at.spent[:] = 0.0, 0.0
                x[here], at.spent[here] = shares(seen), ROUND_S / 2
        before = time.perf_counter()
        how = (told, own, float(doubt), tuple(guard), float(restart_s), x, shares is not None)
        _rounds(jobs, room, RULES.index(rule), *how, at, active)
        spent += time.perf_counter() - before
        if at.counts[0] >= LONGEST:
            raise ValueError(f"not done after {LONGEST:,} rounds: the jobs are more than the pools sustain")
    total = time.perf_counter() - began if shares is not None else spent
    completion = at.ended - jobs.arrival_s
    gpu_s = at.counts[0] * ROUND_S * room.sum()
    return Run(
        completion, completion / own, float(at.ended.max()), float(at.counts[1] / gpu_s), float(at.counts[2] / gpu_s),
        float(active[0] / at.counts[0]), float(at.counts[3] / n), 1e3 * total / max(at.counts[0], 1.0),
    )  # fmt: skip


@njit(**LEAN)
def _left_s(jobs, told, at, i, fastest, doubt):
    """Believed seconds left of job i on its fastest kind."""
    done = jobs.steps[i] - at.left[i]
    if doubt <= 0.0:
        return max(told[i] - done, FLOOR * told[i]) / fastest
    mean = told[i] * np.exp(0.5 * doubt * doubt)
    if done <= 0.0:
        return mean / fastest
    z = np.log(done / told[i]) / doubt
    longer = 0.5 * math.erfc(z / ROOT2)
    if longer < 1e-12:  # far beyond what is believed: the tail's own mean
        return done * doubt / max(z, 1.0) / fastest
    return max(mean * 0.5 * math.erfc((z - doubt) / ROOT2) / longer - done, FLOOR * told[i]) / fastest


@njit(**ROOMY)
def _rounds(jobs, pools, rule, told, own, doubt, guard, restart_s, x, stops, at, active):
    """Rounds until all jobs have ended or, ``stops``, until some came or went."""
    n, w = jobs.speed.shape
    power, gangs, weight, mark, stay, some = guard
    value, order = np.zeros((n, w)), np.zeros(n, np.int64)
    key, free, kind = np.zeros(n), np.zeros(w, np.int64), np.full(n, -1)
    pair = np.zeros(n * w)
    fastest = np.zeros(n)
    for i in range(n):
        for j in range(w):
            fastest[i] = max(fastest[i], jobs.speed[i, j])
    while True:
        now = at.clock[0]
        waiting, alive, next_s = 0, 0, np.inf
        for i in range(n):
            if np.isnan(at.ended[i]):
                alive += 1
                if jobs.arrival_s[i] <= now:
                    waiting += 1
                else:
                    next_s = min(next_s, jobs.arrival_s[i])
        if alive == 0:
            return
        if waiting == 0:
            at.clock[0] = np.ceil(next_s / ROUND_S) * ROUND_S
            if stops:
                return
            continue
        for i in range(n):
            key[i] = np.inf
            kind[i] = -1
            if not np.isnan(at.ended[i]) or jobs.arrival_s[i] > now:
                continue
            left = _left_s(jobs, told, at, i, fastest[i], doubt)
            if rule <= BACKFILL:
                key[i] = jobs.arrival_s[i]
            elif rule == ATTAINED:
                key[i] = at.attained[i]
            elif rule == SRTF:
                key[i] = left
            elif rule == AREA:
                key[i] = left * jobs.gang[i]
            elif rule == MARKET:
                key[i] = 0.0
            elif rule == GUARD:
                ratio = (now - jobs.arrival_s[i] + left) / own[i]
                key[i] = power * np.log(left / 3600.0 + 0.05) + gangs * np.log(jobs.gang[i])
                key[i] -= weight * max(0.0, ratio - mark)
        for j in range(w):
            free[j] = pools[j]
        if rule == MARKET:
            many = 0
            for i in range(n):
                if key[i] == np.inf:
                    continue
                left = _left_s(jobs, told, at, i, fastest[i], doubt)
                ratio = (now - jobs.arrival_s[i] + left) / own[i]
                worth = (left / 3600.0 + 0.05) ** -power * jobs.gang[i] ** -gangs
                worth *= 1.0 + weight * max(0.0, ratio - mark)
                for j in range(w):
                    runs = jobs.speed[i, j] > 0.0
                    same = stay if at.kind[i] == j else 0.0
                    value[i, j] = worth * (jobs.speed[i, j] / fastest[i] + some + same) if runs else -1.0
                order[many] = i
                many += 1
            _trade(jobs.gang, value, order[:many], free, kind)
        elif rule == SHARES:
            _by_shares(jobs, x, at, key, pair, free, kind)
        else:
            for i in np.argsort(key, kind="mergesort"):
                if key[i] == np.inf:
                    break
                best, most = -1, 0.0
                for j in range(w):
                    worth = jobs.speed[i, j] / fastest[i] + (stay if at.kind[i] == j else 0.0)
                    if jobs.speed[i, j] > 0.0 and jobs.gang[i] <= free[j] and worth > most:
                        best, most = j, worth
                if best >= 0:
                    kind[i] = best
                    free[best] -= jobs.gang[i]
                elif rule == FIFO:
                    break
        ended = False
        for i in range(n):
            if key[i] == np.inf:
                continue
            j = kind[i]
            if j >= 0:
                lost = 0.0 if at.kind[i] == j else restart_s
                need = at.left[i] / jobs.speed[i, j]
                run = min(max(ROUND_S - lost, 0.0), need)
                at.left[i] -= run * jobs.speed[i, j]
                at.attained[i] += (lost + run) * jobs.gang[i]
                at.spent[i, j] += ROUND_S
                at.counts[1] += ROUND_S * jobs.gang[i]
                at.counts[2] += run * jobs.gang[i]
                at.counts[3] += at.kind[i] != j
                if at.left[i] <= DONE * jobs.steps[i]:
                    at.ended[i] = now + lost + run
                    ended = True
            at.kind[i] = j
        at.clock[0] = now + ROUND_S
        at.counts[0] += 1.0
        active[0] += waiting
        if at.counts[0] >= LONGEST or (stops and (ended or next_s <= at.clock[0])):
            return


@njit(**ROOMY)
def _trade(gang, value, who, free, kind):
    """Seat the jobs ``who`` so that no single move, trade of two places or replacement raises the sum of their values:
    the dearest pairs of job and kind by GPU first, then every such change until none is left."""
    w = value.shape[1]
    dear = np.zeros(len(who) * w)
    for k in range(len(who)):
        for j in range(w):
            dear[k * w + j] = value[who[k], j] / gang[who[k]]
    for p in np.argsort(-dear, kind="mergesort"):
        i, j = who[p // w], p % w
        if value[i, j] > 0.0 and kind[i] < 0 and gang[i] <= free[j]:
            kind[i] = j
            free[j] -= gang[i]
    for _ in range(SWEEPS):
        changed = False
        for i in who:
            changed |= _better_place(gang, value, who, free, kind, i)
        if not changed:
            return


@njit(**LEAN)
def _better_place(gang, value, who, free, kind, i):
    """Move job i to a kind with room, or to the place of another that takes its own, goes where there is room or gives
    way, whichever raises the sum of values most; whether any did."""
    w, own = value.shape[1], kind[i]
    mine = value[i, own] if own >= 0 else 0.0
    gain, to, other, goes = 1e-12, -1, -1, -1
    for j in range(w):
        if j == own or value[i, j] <= 0.0:
            continue
        more = value[i, j] - mine
        if gang[i] <= free[j] and more > gain:
            gain, to, other, goes = more, j, -1, -1
        if more <= gain and own < 0:
            continue
        for o in who:
            if o == i or kind[o] != j or gang[i] > free[j] + gang[o]:
                continue
            for q in range(-1, w):  # where the other goes: nowhere, or a kind with room once i has left its own
                if q == j:
                    continue
                room = 0 if q < 0 else free[q] + (gang[i] if q == own else 0)
                if q >= 0 and (value[o, q] <= 0.0 or gang[o] > room):
                    continue
                both = more + (value[o, q] if q >= 0 else 0.0) - value[o, j]
                if both > gain:
                    gain, to, other, goes = both, j, o, q
    if to < 0:
        return False
    if own >= 0:
        free[own] += gang[i]
    if other >= 0:
        free[to] += gang[other]
        kind[other] = goes
        if goes >= 0:
            free[goes] -= gang[other]
    kind[i] = to
    free[to] -= gang[i]
    return True


@njit(**ROOMY)
def _by_shares(jobs, x, at, key, pair, free, kind):
    """Gavel's rounds: pairs of job and kind by their share over the part of the time that they had, then who is left
    wherever there is room."""
    n, w = jobs.speed.shape
    for j in range(w):
        total = 0.0
        for i in range(n):
            if np.isfinite(at.spent[i, j]):
                total += at.spent[i, j]
        for i in range(n):
            had = at.spent[i, j] / total if total > 0.0 else 0.0
            pair[i * w + j] = x[i, j] / had if x[i, j] > 1e-9 and had > 0.0 else 0.0
    for p in np.argsort(-pair, kind="mergesort"):
        i, j = p // w, p % w
        here = np.isnan(at.ended[i]) and jobs.arrival_s[i] <= at.clock[0]
        key[i] = 0.0 if here else np.inf
        if here and kind[i] < 0 and jobs.speed[i, j] > 0.0 and jobs.gang[i] <= free[j]:
            kind[i] = j
            free[j] -= jobs.gang[i]
