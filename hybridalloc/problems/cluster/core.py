r"""The compiled core: what a place is worth to a pod, which node it takes, and what that leaves.

The potential of the cluster is a sum over nodes of terms that depend on what is left there, each a sum over its GPUs or
a function of them, weighted by prices (:data:`POTENTIAL`). A pod is charged what it changes, and private costs beside
(:data:`PRIVATE`), so every single move lowers the whole by what it saves. Pods arrive one by one and do not move: the
best response of the one that arrives is the equilibrium.

One kernel (:func:`weigh`) serves the stream, the game, what learners observe and the step. Scores are kept by kind of
pod and node until that node changes, which makes a decision a look at one number a node.

Source of the fragmentation measure and of its rounding, of best fit, dot product and packing: the simulator of Weng et
al. (2023).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Float, Int
from games.lean import KEPT, LEAN, ROOMY
from hybridalloc.problems.cluster.workload import SLOTS, WHOLE, Nodes, Workload

POTENTIAL = (
    "fragments", "gpu_square", "cpu_square", "partial", "fill", "price", "fill_gpu", "closable", "dead", "idle",
    "stranded", "whole", "blocks", "closed",
)  # fmt: skip
PRIVATE = ("fgd", "order", "whole_on_large", "share_on_large", "cpu_on_gpu", "lean_on_rich", "bid")
TERMS = (*POTENTIAL, *PRIVATE)
P = len(POTENTIAL)
CORES = 64  # of the fill table; a GPU with more is one with so many
RULES = ("weights", "random", "first_fit", "best_fit", "worst_fit", "least_loaded", "dot_product", "tetris", "packing")
WEIGHTS, RANDOM, FIRST, BEST, WORST, LEAST, DOT, TETRIS, PACKING = range(len(RULES))
MOST_CPU, MOST_GPU = 128_000.0, 8_000.0  # of a node, by which the published scores are scaled
NONE = -1e300
LEVEL = 25.0  # published levels of fragmentation (of 100) in a unit of the "fgd" term


class Left(NamedTuple):
    """What is left on K nodes: cpu (K,), memory (K,), milli (K, 8) of each GPU, -1 where there is none; version (K,)
    counts its changes."""

    cpu: Int
    memory: Int
    milli: Int
    version: Int


class Tables(NamedTuple):
    """What a workload says of leftovers, see :mod:`.tables`.

    Attributes:
        cpu, gpus, milli, share: (M,) typical pods. fill: (CORES + 1, 101) milli that a GPU with so many cores and so
            many hundredths left is expected to be given yet; chance: the share of GPU pods that it has room for.
        price: (C, 1001) what the linear program pays for a leftover on a node of kind C, in milli. bid: (T, C) what a
            pod's CPU and memory cost there, in milli.
    """

    cpu: Int
    gpus: Int
    milli: Int
    share: Float
    fill: Float
    chance: Float
    price: Float
    bid: Float


class Cache(NamedTuple):
    """Scores by kind of pod and node (T, K), the GPU that goes with each, the node's version that they are of; terms of
    the potential (K, P) and the version that they are of (K,)."""

    score: Float
    gpu: Int
    seen: Int
    terms: Float
    at: Int


def all_left(work: Workload, order: Int) -> Left:
    """The empty cluster, its nodes in ``order`` (K,)."""
    n = work.nodes
    milli = np.where(np.arange(SLOTS) < n.gpus[order, None], WHOLE, -1).astype(np.int64)
    return Left(n.cpu[order].copy(), n.memory[order].copy(), milli, np.zeros(len(order), np.int64))


def no_cache(kinds: int, nodes: int, *worlds: int) -> Cache:
    """Nothing is known yet; with axes for worlds before the others where they are given."""
    shape, node = (*worlds, kinds, nodes), (*worlds, nodes)
    score, gpu = np.zeros(shape), np.zeros(shape, np.int64)
    return Cache(score, gpu, np.full(shape, -1), np.zeros((*node, P)), np.full(node, -1))


@njit(**LEAN)
def fragments(cpu, milli, t):
    """Milli-GPU left on a node that a typical pod cannot use, expected over typical pods."""
    total = 0
    for i in range(SLOTS):
        total += max(milli[i], 0)
    if total == 0:
        return 0.0
    out = 0.0
    for m in range(len(t.share)):
        if t.milli[m] == 0 or cpu < t.cpu[m]:
            out += t.share[m] * total
            continue
        many, small = 0, 0
        for i in range(SLOTS):
            if milli[i] >= t.milli[m]:
                many += 1
            else:
                small += max(milli[i], 0)
        out += t.share[m] * (small if many >= t.gpus[m] else total)
    return out


@njit(**LEAN)
def describe(cpu, milli, kind, t, out):
    """Fill ``out`` (P,) with the potential's terms of one node."""
    total, whole, partial, closed, gpus = 0, 0, 0, 0, 0
    for i in range(SLOTS):
        if milli[i] >= 0:
            gpus += 1
            total += milli[i]
            whole += milli[i] == WHOLE
            closed += milli[i] == 0
            partial += 0 < milli[i] < WHOLE
    fill, alone, price, closable, dead = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(SLOTS):
        left = milli[i]
        if left <= 0:
            continue
        r = left // 10
        cores = cpu / 1000.0 * left / total  # its part of the node's
        if cores >= CORES:
            fill += t.fill[CORES, r]
        else:
            a = int(cores)
            fill += (a + 1 - cores) * t.fill[a, r] + (cores - a) * t.fill[a + 1, r]
        alone += t.fill[CORES, r]
        price += t.price[kind, left]
        closable += t.chance[CORES, r] * left
        dead += left if t.chance[CORES, r] == 0.0 else 0.0
    out[0] = -fragments(cpu, milli, t) / 1000.0
    out[1] = (total / MOST_GPU) ** 2
    out[2] = (cpu / MOST_CPU) ** 2
    out[3] = -partial
    out[4] = fill / 1000.0
    out[5] = price / 1000.0
    out[6] = alone / 1000.0
    out[7] = closable / 1000.0
    out[8] = -dead / 1000.0
    out[9] = 1.0 if whole == gpus and gpus > 0 else 0.0
    out[10] = -cpu / 96_000.0 if total == 0 else 0.0
    out[11] = whole * whole / 16.0
    out[12] = 1.0 if whole == SLOTS else 0.0
    out[13] = closed


@njit(**LEAN)
def fits(cpu, memory, gpus, milli, left, n):
    """Whether a pod has room on node n."""
    if left.cpu[n] < cpu or left.memory[n] < memory:
        return False
    many = 0
    for i in range(SLOTS):
        many += left.milli[n, i] >= milli
    return gpus == 0 or many >= gpus


@njit(**LEAN)
def weigh(pod, t, n, left, nodes, kind, tables, cache, w, after, terms, out):
    """What node n is worth to a pod that fits it: its score and the GPU that goes with that (-1: whole ones or none).

    Args:
        pod: cpu, memory, gpus, milli. t: its kind, -1 where it is none of the workload's. kind: of the node.
        w: (P + Q,) weights. after: (8,), terms: (P,) room. out: (P + Q,) features of the best GPU; empty: not asked.
    """
    cpu, gpus, milli = pod[0], pod[2], pod[3]
    if cache.at[n] != left.version[n]:
        describe(left.cpu[n], left.milli[n], kind, tables, cache.terms[n])
        cache.at[n] = left.version[n]
    before = cache.terms[n]
    many, total, slots = len(left.cpu), 0, 0
    for i in range(SLOTS):
        slots += left.milli[n, i] >= 0
        total += max(left.milli[n, i], 0)
        after[i] = left.milli[n, i]
    shares, large = gpus == 1 and milli < WHOLE, np.log2(max(slots, 1))
    rich = min(nodes.cpu[n] / 1000.0 / max(slots, 1), 60.0) / 20.0
    private = -w[P + 1] * n / many
    if gpus > 0 and not shares:
        private -= w[P + 2] * large * (gpus == 1)
    if shares:
        private -= w[P + 3] * large
    if gpus == 0:
        private -= w[P + 4] * total / MOST_GPU
    if gpus > 0 and cpu < 10_000:
        private -= w[P + 5] * rich
    if t >= 0:
        private -= w[P + 6] * tables.bid[t, kind] / 1000.0
    best, chosen = NONE, -1
    for i in range(SLOTS if shares else 1):
        if shares:
            if left.milli[n, i] < milli:
                continue
            same = False
            for j in range(i):
                same |= left.milli[n, j] == left.milli[n, i]
            if same:
                continue
            after[i] -= milli
        else:
            need = gpus
            for j in range(SLOTS):
                if need > 0 and after[j] == WHOLE:
                    after[j] = 0
                    need -= 1
        describe(left.cpu[n] - cpu, after, kind, tables, terms)
        rounded = np.floor(100.0 / (1.0 + np.exp(before[0] - terms[0]))) / LEVEL
        score = private + w[P] * rounded
        for k in range(P):
            score += w[k] * (terms[k] - before[k])
        if score > best:
            best, chosen = score, i if shares else -1
            if len(out):
                for k in range(P):
                    out[k] = terms[k] - before[k]
                out[P] = rounded
        if shares:
            after[i] += milli
    if len(out):
        out[P + 1] = -n / many
        out[P + 2] = -large if gpus == 1 and not shares else 0.0
        out[P + 3] = -large if shares else 0.0
        out[P + 4] = -total / MOST_GPU if gpus == 0 else 0.0
        out[P + 5] = -rich if gpus > 0 and cpu < 10_000 else 0.0
        out[P + 6] = -tables.bid[t, kind] / 1000.0 if t >= 0 else 0.0
    return best, chosen


@njit(**LEAN)
def judge(rule, pod, n, left, nodes):
    """What node n is worth to a pod that fits it by a heuristic, as published where it was published."""
    cpu, need = left.cpu[n] - pod[0], pod[2] * pod[3]
    total, whole, slots = 0, 0, 0
    for i in range(SLOTS):
        total += max(left.milli[n, i], 0)
        whole += left.milli[n, i] == WHOLE
        slots += left.milli[n, i] >= 0
    if rule == BEST:
        return np.floor(100.0 * (1.0 - 0.5 * cpu / MOST_CPU - 0.5 * (total - need) / MOST_GPU))
    if rule == WORST:
        return np.floor(cpu + 100.0 * (total - need))
    if rule == LEAST:
        gpu = (total - need) / (slots * WHOLE) if slots > 0 else 1.0
        return min(cpu / max(nodes.cpu[n], 1), gpu)
    if rule in (DOT, TETRIS):
        dot = (left.cpu[n] * pod[0] / MOST_CPU**2 + total * need / MOST_GPU**2) / 2.0
        return np.floor(100.0 * (1.0 - dot)) if rule == DOT else dot
    if rule == PACKING and need > 0:
        if whole == slots:
            return max(33.0 - whole, float(whole))
        used, fresh, room = pod[2], 0, 0
        for wanted in range(2):  # shared GPUs first, the fullest first: how much is left on them counts
            for i in range(SLOTS):
                if used > 0 and left.milli[n, i] >= pod[3] and (left.milli[n, i] == WHOLE) == (wanted == 1):
                    used -= 1
                    fresh += wanted
        if fresh > 0:
            return max(50.0 - fresh, 33.0)
        room = WHOLE
        for i in range(SLOTS):
            if left.milli[n, i] >= pod[3]:
                room = min(room, left.milli[n, i])
        return max(100.0 - room * 100 // WHOLE // 10, 50.0)
    return 0.0


@njit(**LEAN)
def tightest(milli, pod):
    """The GPU with least left that a part fits, the first of equals."""
    best = -1
    for i in range(SLOTS):
        if milli[i] >= pod[3] and (best < 0 or milli[i] < milli[best]):
            best = i
    return best


@njit(**LEAN)
def score_nodes(rule, pod, t, row, left, nodes, kind, tables, cache, w, after, terms, none):
    """Bring row ``row`` of the cache up to date for a pod of kind t."""
    score, seen = cache.score[row], cache.seen[row]
    for n in range(len(left.cpu)):
        if seen[n] == left.version[n]:
            continue
        seen[n] = left.version[n]
        score[n] = NONE
        if not fits(pod[0], pod[1], pod[2], pod[3], left, n):
            continue
        if rule == WEIGHTS:
            score[n], cache.gpu[row, n] = weigh(pod, t, n, left, nodes, kind[n], tables, cache, w, after, terms, none)
        else:
            score[n] = judge(rule, pod, n, left, nodes)
            cache.gpu[row, n] = tightest(left.milli[n], pod)


@njit(**LEAN)
def pick(score, ties, scaled):
    """The best node of ``score`` (K,), -1 for none: the first of equals, or for 0 <= ``ties`` < 1 that part of them.
    ``scaled``: equals after scores were stretched to 0 to 100 and cut, as published for best and worst fit."""
    best, high, low = -1, NONE, np.inf
    for n in range(len(score)):
        if score[n] > high:
            best, high = n, score[n]
        if score[n] > NONE and score[n] < low:
            low = score[n]
    if best < 0 or ties < 0.0:
        return best
    span, count = high - low, 0
    for n in range(len(score)):
        count += _equal(score[n], high, low, span, scaled)
    chosen = min(int(ties * count), count - 1)
    for n in range(len(score)):
        if _equal(score[n], high, low, span, scaled):
            if chosen == 0:
                return n
            chosen -= 1
    return best


@njit(**LEAN)
def _equal(score, high, low, span, scaled):
    if score <= NONE:
        return False
    return score == high or (scaled and span > 0.0 and np.floor((score - low) * 100.0 / span) == 100.0)


@njit(**LEAN)
def some_gpu(milli, pod, share):
    """The GPU at ``share`` in [0, 1) of those that a part fits."""
    count = 0
    for i in range(SLOTS):
        count += milli[i] >= pod[3]
    chosen = min(int(share * count), count - 1)
    for i in range(SLOTS):
        if milli[i] >= pod[3]:
            if chosen == 0:
                return i
            chosen -= 1
    return -1


@njit(**LEAN)
def take(pod, n, gpu, left):
    """Start a pod on node n: a part of ``gpu``, or the first whole ones; its GPUs, bit by bit."""
    left.cpu[n] -= pod[0]
    left.memory[n] -= pod[1]
    left.version[n] += 1
    if pod[2] == 1 and pod[3] < WHOLE:
        left.milli[n, gpu] -= pod[3]
        return 1 << gpu
    need, held = pod[2], 0
    for i in range(SLOTS):
        if need > 0 and left.milli[n, i] == WHOLE:
            left.milli[n, i] = 0
            held |= 1 << i
            need -= 1
    return held


@njit(**LEAN)
def give_back(pod, n, held, left):
    """End a pod on node n that has the GPUs ``held``, bit by bit."""
    left.cpu[n] += pod[0]
    left.memory[n] += pod[1]
    left.version[n] += 1
    for i in range(SLOTS):
        if held >> i & 1:
            left.milli[n, i] += pod[3]


@njit(**ROOMY)
def play(
    rule, random_ties, sequence, pods, left, nodes, kind, tables, cache, w, late, stages, draws, leaves, going, demand,
    used, node, held,
):  # fmt: skip
    """Place a sequence of pods one by one, none moves; how many were placed.

    Args:
        sequence: (A,) kinds of pods. pods: (T, 4) cpu, memory, gpus, milli. w: (F,) weights while the cluster is empty.
        late: (F,) when it is full. stages: steps between the two, 1 for ``w`` alone.
        draws: (A, 2) in [0, 1), for ties and GPUs at random. leaves: (A,) the arrival before which each has ended, and
            going: (A,) all by that; both (0,) where nobody ends. demand, used: (A,) filled: milli-GPU asked for by whom
            has come and not ended, and in use. node, held: (A,) filled: where each went, -1 for nowhere, and its GPUs.
    """
    after, terms, none = np.zeros(SLOTS, np.int64), np.zeros(P), np.zeros(0)
    weights, stage, room = w.copy(), 0, 0
    for n in range(len(left.cpu)):
        for i in range(SLOTS):
            room += WHOLE if left.milli[n, i] >= 0 else 0
    came, taken, placed, gone = 0, 0, 0, 0
    for a in range(len(sequence)):
        while gone < len(going) and leaves[going[gone]] <= a:
            j = going[gone]
            ended = pods[sequence[j]]
            came -= ended[2] * ended[3]
            if node[j] >= 0:
                give_back(ended, node[j], held[j], left)
                taken -= ended[2] * ended[3]
            gone += 1
        t = sequence[a]
        pod = pods[t]
        if stages > 1:
            now = min(int(stages * taken / room), stages - 1)
            if now != stage:
                stage = now
                for k in range(len(w)):
                    weights[k] = w[k] + (late[k] - w[k]) * now / (stages - 1)
                for q in range(cache.seen.shape[0]):
                    for n in range(cache.seen.shape[1]):
                        cache.seen[q, n] = -1
        score_nodes(rule, pod, t, t, left, nodes, kind, tables, cache, weights, after, terms, none)
        n = pick(cache.score[t], draws[a, 0] if random_ties else -1.0, rule in (BEST, WORST))
        came += pod[2] * pod[3]
        if n >= 0:
            gpu = some_gpu(left.milli[n], pod, draws[a, 1]) if rule == RANDOM else cache.gpu[t, n]
            held[a] = take(pod, n, gpu, left)
            taken += pod[2] * pod[3]
            placed += 1
        demand[a], used[a], node[a] = came, taken, n
    return placed


@njit(**ROOMY)
def score_worlds(rule, pod, kind, row, left, nodes, tables, cache, w):
    """:func:`score_nodes` in E worlds: pod (E, 4), kind and row (E,), all of ``left``, ``nodes`` and ``cache`` with an
    axis E before the others."""
    after, terms, none = np.zeros(SLOTS, np.int64), np.zeros(P), np.zeros(0)
    for e in range(len(pod)):
        score_nodes(
            rule, pod[e], kind[e], row[e], _left(left, e), _nodes(nodes, e), nodes.kind[e], tables, _cache(cache, e), w,
            after, terms, none,
        )  # fmt: skip


@njit(**ROOMY)
def observe_worlds(pod, kind, left, nodes, down, tables, cache, w, out, allowed):
    """Fill ``out`` (E, K, F) with the terms of every node that fits, and ``allowed`` (E, K)."""
    after, terms, found = np.zeros(SLOTS, np.int64), np.zeros(P), np.zeros(out.shape[2])
    for e in range(len(pod)):
        here, there, known = _left(left, e), _nodes(nodes, e), _cache(cache, e)
        p = pod[e]
        for n in range(out.shape[1]):
            allowed[e, n] = not down[e, n] and fits(p[0], p[1], p[2], p[3], here, n)
            if allowed[e, n]:
                weigh(p, kind[e], n, here, there, nodes.kind[e, n], tables, known, w, after, terms, found)
                for k in range(len(found)):
                    out[e, n, k] = found[k]


@njit(**ROOMY)
def _left(left, e):
    return Left(left.cpu[e], left.memory[e], left.milli[e], left.version[e])


@njit(**ROOMY)
def _nodes(nodes, e):
    return Nodes(nodes.cpu[e], nodes.memory[e], nodes.gpus[e], nodes.kind[e])


@njit(**ROOMY)
def _cache(cache, e):
    return Cache(cache.score[e], cache.gpu[e], cache.seen[e], cache.terms[e], cache.at[e])


@njit(**KEPT)
def start(pod, option, gpus, left):
    """Start the pods (E, 4) of E worlds on their nodes, option - 1, on the GPUs of each mask (E,)."""
    for e in range(len(option)):
        n = option[e] - 1
        if n < 0:
            continue
        left.cpu[e, n] -= pod[e, 0]
        left.memory[e, n] -= pod[e, 1]
        left.version[e, n] += 1
        for i in range(SLOTS):
            if gpus[e] >> i & 1:
                left.milli[e, n, i] -= pod[e, 3]
