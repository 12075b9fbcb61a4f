"""Events, compiled: requests come, reports are scraped, replicas fail and return; a request that is to be decided stops
the clock.

:func:`advance` runs to the next decision, :func:`look` tells what the dispatcher sees, :func:`send` and :func:`hold`
carry out what it decided. Of things at one time what ends at a replica comes first, then snapshots, changes, news of
changes, requests that waited, and new ones. Dispatchers see their own requests as they are, replicas by reports alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Bool, Float
from games.lean import INLINE, INNER, LEAN
from hybridalloc.problems.balancer.replica import begin, cached, forget, run_until
from hybridalloc.problems.balancer.sim import (
    ARRIVED,
    BLOCK,
    DONE,
    EVENT,
    HELD,
    ITERATION_S,
    KV,
    NEVER,
    NEXT_SCRAPE,
    NOW,
    OWN_KV,
    OWN_TOKENS,
    OWN_WAITING,
    OWNED,
    PHASES,
    REFUSED,
    REPORTED,
    REQUESTS,
    RETRIED,
    RUNNING,
    SCRAPES,
    SNAPSHOTS,
    TOKENS,
    WAITING,
    WAITS,
)

PROMPT, DISPATCHERS, GAP_S, MEAN_PROMPT, MEAN_OUTPUT, WAITED_S = range(6)
ABOUT = 6


class View(NamedTuple):
    """What a dispatcher sees when it decides about one request, replica by replica."""

    up: Bool  # (R,) as far as it knows
    age_s: Float  # (R,) of the report
    told: Float  # (R, REPORTED) the report
    then: Float  # (R, OWNED) its own part there when the report was taken
    own: Float  # (R, OWNED) now
    hit: Float  # (R,) prompt tokens that are cached there, as far as it knows
    about: Float  # (ABOUT,) the request and the traffic


def new_view(replicas: int) -> View:
    """Room for what is seen."""
    f = lambda *shape: np.zeros((replicas, *shape))
    return View(np.zeros(replicas, bool), f(), f(REPORTED), f(OWNED), f(OWNED), f(), np.zeros(ABOUT))


# --- requests that wait at dispatchers: a heap by (due, dispatcher, request)


@njit(**INLINE)
def _sooner(heap, a, b):
    if heap.due[a] != heap.due[b]:
        return heap.due[a] < heap.due[b]
    if heap.owner[a] != heap.owner[b]:
        return heap.owner[a] < heap.owner[b]
    return heap.request[a] < heap.request[b]


@njit(**INLINE)
def _swap(heap, a, b):
    due, owner, request = heap.due[a], heap.owner[a], heap.request[a]
    heap.due[a], heap.owner[a], heap.request[a] = heap.due[b], heap.owner[b], heap.request[b]
    heap.due[b], heap.owner[b], heap.request[b] = due, owner, request


@njit(**INNER)
def wait(heap, counts, due, i, trace):
    """Request i waits at its dispatcher until ``due``."""
    k = counts[WAITS]
    heap.due[k], heap.owner[k], heap.request[k] = due, trace.dispatcher[i], i
    counts[WAITS] = k + 1
    while k > 0 and _sooner(heap, k, (k - 1) // 2):
        _swap(heap, k, (k - 1) // 2)
        k = (k - 1) // 2


@njit(**INNER)
def next_waiting(heap, counts):
    """The request that is due first, which waits no longer."""
    i = heap.request[0]
    last = counts[WAITS] - 1
    counts[WAITS] = last
    _swap(heap, 0, last)
    k = 0
    while 2 * k + 1 < last:
        child = 2 * k + 1
        if child + 1 < last and _sooner(heap, child + 1, child):
            child += 1
        if not _sooner(heap, child, k):
            break
        _swap(heap, k, child)
        k = child
    return i


# --- the clock


@njit(**LEAN)
def advance(sim):
    """To the next request that is to be decided.

    Returns:
        its number; -1 where none is left to decide: all are done, or (see ``counts[DONE]``) no replica will be up
        again.
    """
    law, trace, fleet, replicas, lines, requests, prefixes, reports, own, changes, heap, _, clock, counts = sim
    q = len(trace.arrival)
    while True:
        arrival = trace.arrival[counts[ARRIVED]] if counts[ARRIVED] < q else NEVER
        waiting = heap.due[0] if counts[WAITS] > 0 else NEVER
        change = changes.at[counts[EVENT]] if counts[EVENT] < len(changes.at) else NEVER
        news, who = NEVER, -1
        for r in range(len(replicas.end)):
            if replicas.known_at[r] < news:
                news, who = replicas.known_at[r], r
        scrape = clock[NEXT_SCRAPE] if min(arrival, waiting) < NEVER else NEVER
        t = min(min(arrival, waiting), min(scrape, min(change, news)))
        for r in range(len(replicas.end)):
            if replicas.end[r] <= t and replicas.end[r] < NEVER:
                run_until(
                    min(t, 0.5 * NEVER), r, trace, fleet, replicas, lines, requests, prefixes, own, clock, counts
                )  # fmt: skip
        if t >= NEVER or (counts[DONE] == q):
            return -1
        clock[NOW] = t
        if t == scrape:
            _snapshot(t, law, replicas, reports, own, clock, counts)
        elif t == change:
            _change(t, law, trace, replicas, lines, requests, prefixes, own, changes, heap, counts)
        elif t == news:
            replicas.known_up[who], replicas.known_at[who] = replicas.up[who], NEVER
        elif t == waiting:
            i = next_waiting(heap, counts)
            if _some(replicas.known_up):
                return i
            if min(change, news) >= NEVER:
                wait(heap, counts, t, i, trace)
                return -1
            wait(heap, counts, max(t + law.hold_s, min(change, news)), i, trace)
        else:
            i = counts[ARRIVED]
            counts[ARRIVED] += 1
            _notice(t, i, trace, own)
            due = np.ceil(t / law.gather_s) * law.gather_s if law.gather_s > 0.0 else t
            if due <= t and _some(replicas.known_up):
                return i
            wait(heap, counts, due, i, trace)


@njit(**LEAN)
def gathered(sim, i, out):
    """Who else waits at the dispatcher of request i and is due at this very moment: fills ``out`` (N,), i first; how
    many there are."""
    heap, counts, trace, now = sim.heap, sim.counts, sim.trace, sim.clock[NOW]
    out[0] = i
    n = 1
    while n < len(out) and counts[WAITS] > 0 and heap.due[0] <= now:
        if heap.owner[0] != trace.dispatcher[i]:
            break
        out[n] = next_waiting(heap, counts)
        n += 1
    return n


@njit(**INLINE)
def _notice(t, i, trace, own):
    d, traffic = trace.dispatcher[i], own.traffic
    if traffic.last_s[d] > 0.0:
        gap = t - traffic.last_s[d]
        traffic.gap_s[d] = gap if traffic.gap_s[d] == 0.0 else traffic.gap_s[d] + 0.03 * (gap - traffic.gap_s[d])
    traffic.last_s[d] = t
    traffic.prompt[d] += 0.01 * (trace.prompt[i] - traffic.prompt[d])


@njit(**INLINE)
def _tell(r, replicas, out):
    """What replica r reports at this moment."""
    out[WAITING] = replicas.tail[r] - replicas.head[r]
    out[RUNNING] = replicas.runs[r] + replicas.joins[r]
    out[KV], out[TOKENS] = replicas.kv[r], replicas.waiting_tokens[r]
    out[ITERATION_S] = replicas.iteration_s[r]


@njit(**INLINE)
def copied(out, values):
    """``out`` becomes ``values``, of one axis; numpy's own would make an array."""
    for k in range(len(out)):
        out[k] = values[k]


@njit(**INLINE)
def _some(up):
    some = False
    for r in range(len(up)):
        some |= up[r]
    return some


@njit(**INNER)
def _snapshot(t, law, replicas, reports, own, clock, counts):
    """Every replica's report of this moment is taken down, and every dispatcher's own part beside it."""
    k = counts[SCRAPES] % SNAPSHOTS
    before = (counts[SCRAPES] - 1) % SNAPSHOTS
    reports.at[k] = t
    for r in range(len(replicas.end)):
        if replicas.up[r]:
            _tell(r, replicas, reports.told[k, r])
        elif counts[SCRAPES] > 0:
            copied(reports.told[k, r], reports.told[before, r])
        for d in range(law.dispatchers):
            copied(reports.own[k, d, r], own.own[d, r])
    counts[SCRAPES] += 1
    clock[NEXT_SCRAPE] = counts[SCRAPES] * law.scrape_s / PHASES


@njit(**INNER)
def _change(t, law, trace, replicas, lines, requests, prefixes, own, changes, heap, counts):
    """A replica goes down, comes up, or is slower."""
    r, value = changes.replica[counts[EVENT]], changes.value[counts[EVENT]]
    counts[EVENT] += 1
    if value > 0.0:
        replicas.slow[r] = value
        return
    replicas.up[r] = value < 0.0
    replicas.known_at[r] = t + law.detect_s
    if replicas.up[r]:
        return
    for j in range(replicas.runs[r]):
        _lost(t + law.detect_s, r, np.int64(lines.running[r, j]), trace, requests, own, heap, counts)
    for j in range(replicas.joins[r]):
        _lost(t + law.detect_s, r, np.int64(lines.joining[r, j]), trace, requests, own, heap, counts)
    size = lines.queue.shape[1]
    for k in range(replicas.head[r], replicas.tail[r]):
        _lost(t + law.detect_s, r, np.int64(lines.queue[r, k % size]), trace, requests, own, heap, counts)
    replicas.head[r] = replicas.tail[r]
    replicas.runs[r] = replicas.joins[r] = 0
    replicas.kv[r] = replicas.waiting_tokens[r] = 0.0
    replicas.partial[r], replicas.least[r], replicas.end[r] = -1, 2**62, NEVER
    forget(r, prefixes)


@njit(**INNER)
def _lost(due, r, i, trace, requests, own, heap, counts):
    """A replica that went down had request i: its dispatcher sees the connection break, and sends it again."""
    mine = own.own[trace.dispatcher[i], r]
    mine[REQUESTS] -= 1.0
    if np.isnan(requests.first[i]):
        mine[OWN_TOKENS] -= trace.prompt[i] - requests.hit[i]
        mine[OWN_WAITING] -= 1.0
    else:
        mine[OWN_KV] -= trace.prompt[i]
    requests.made[i] = requests.left[i] = requests.hit[i] = 0.0
    requests.place[i] = -1
    counts[RETRIED] += 1
    wait(heap, counts, due, i, trace)


# --- a decision


@njit(**LEAN)
def look(sim, i, view):
    """Fill ``view`` with what the dispatcher of request i sees now."""
    law, trace, replicas, reports, own = sim.law, sim.trace, sim.replicas, sim.reports, sim.dispatchers
    now, d = sim.clock[NOW], trace.dispatcher[i]
    for r in range(len(replicas.end)):
        view.up[r] = replicas.known_up[r]
        copied(view.own[r], own.own[d, r])
        view.hit[r] = _known_hit(sim, d, r, i)
        if law.scrape_s <= 0.0:
            view.age_s[r] = 0.0
            _tell(r, replicas, view.told[r])
            copied(view.then[r], own.own[d, r])
            continue
        k = _latest(law, reports, sim.counts[SCRAPES], reports.phase[d, r], now)
        if k < 0:  # none yet: nobody else is known of
            view.age_s[r] = now
            view.told[r, WAITING], view.told[r, RUNNING] = 0.0, own.own[d, r, REQUESTS]
            view.told[r, KV], view.told[r, TOKENS] = own.own[d, r, OWN_KV], own.own[d, r, OWN_TOKENS]
            view.told[r, ITERATION_S] = sim.fleet.base_s[r]
            copied(view.then[r], own.own[d, r])
        else:
            view.age_s[r] = now - reports.at[k]
            copied(view.told[r], reports.told[k, r])
            copied(view.then[r], reports.own[k, d, r])
    about = view.about
    about[PROMPT], about[DISPATCHERS], about[GAP_S] = trace.prompt[i], law.dispatchers, own.traffic.gap_s[d]
    about[MEAN_PROMPT], about[MEAN_OUTPUT] = own.traffic.prompt[d], own.traffic.output[d]
    about[WAITED_S] = now - trace.arrival[i]


@njit(**INLINE)
def _latest(law, reports, scrapes, phase, now):
    """The newest snapshot of a phase that has arrived; -1 where none has."""
    newest = scrapes - 1
    k = newest - (newest - phase) % PHASES
    while k >= 0 and k > newest - SNAPSHOTS:
        if reports.at[k % SNAPSHOTS] <= now - law.late_s + 1e-12:
            return k % SNAPSHOTS
        k -= PHASES
    return np.int64(-1)


@njit(**INLINE)
def _known_hit(sim, d, r, i):
    """Prompt tokens of request i that dispatcher d takes to be cached at r: as told, or as it sent them there."""
    trace, prefixes = sim.trace, sim.prefixes
    if trace.first[i + 1] == trace.first[i]:
        return 0.0
    if sim.law.exact_index:
        return cached(r, i, trace, prefixes)
    known, room = 0, sim.fleet.blocks[r] // sim.law.dispatchers
    for b in range(trace.first[i], trace.first[i + 1]):
        if prefixes.sends[d, r] - prefixes.sent[d, r, trace.block[b]] > room:
            break
        known += 1
    return min(known * BLOCK, trace.prompt[i] - 1.0)


@njit(**LEAN)
def send(sim, i, r):
    """Request i goes to replica r; one that is down refuses it, and it waits to be decided again."""
    law, trace, fleet, replicas, lines, requests, prefixes, _, own, _, heap, _, clock, counts = sim
    now, d = clock[NOW], trace.dispatcher[i]
    requests.tries[i] += 1
    if not replicas.up[r]:
        counts[REFUSED] += 1
        wait(heap, counts, now + law.detect_s, i, trace)
        return
    requests.hit[i] = _known_hit(sim, d, r, i)
    requests.place[i], requests.sent[i] = r, now
    requests.there[i] = replicas.tail[r] - replicas.head[r] + replicas.runs[r] + replicas.joins[r]
    mine = own.own[d, r]
    mine[REQUESTS] += 1.0
    if np.isnan(requests.first[i]):
        mine[OWN_TOKENS] += trace.prompt[i] - requests.hit[i]
        mine[OWN_WAITING] += 1.0
    else:
        mine[OWN_KV] += trace.prompt[i]
    if not law.exact_index:
        for b in range(trace.first[i], trace.first[i + 1]):
            prefixes.sends[d, r] += 1
            prefixes.sent[d, r, trace.block[b]] = prefixes.sends[d, r]
    lines.queue[r, replicas.tail[r] % lines.queue.shape[1]] = i
    replicas.tail[r] += 1
    replicas.waiting_tokens[r] += trace.prompt[i]
    if replicas.end[r] >= NEVER:
        begin(now, r, trace, fleet, replicas, lines, requests, prefixes)


@njit(**LEAN)
def hold(sim, i):
    """Request i is decided again a little later."""
    sim.counts[HELD] += 1
    wait(sim.heap, sim.counts, sim.clock[NOW] + sim.law.hold_s, i, sim.trace)
