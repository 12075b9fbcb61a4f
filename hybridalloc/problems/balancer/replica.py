"""One replica's iterations, compiled: admission, chunked prefill, decoding, preemption, the cache of prefixes.

Requests of one replica are served first come, first served. A prompt is admitted when its tokens, less none, fit into
KV memory; when running requests outgrow it the newest goes back to the head of the queue and starts over with what it
has made (preemption with recompute). A request holds its prompt and what it made.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import INLINE, INNER
from hybridalloc.problems.balancer.sim import (
    AHEAD,
    BLOCK,
    DONE,
    ENDED,
    JOINING,
    LATE_AT,
    NEVER,
    OWN_KV,
    OWN_TOKENS,
    OWN_WAITING,
    PREEMPTED,
    REQUESTS,
)

FULL = 0.97  # of KV memory: beyond it no prompt is admitted
PACE = 0.1  # of running means of what a replica does


@njit(**INNER)
def run_until(until, r, trace, fleet, replicas, lines, requests, prefixes, dispatchers, clock, counts):
    """Let replica r end every iteration that ends by ``until``.

    While it is run ahead what dispatchers, caches and outcomes see of it does not happen.
    """
    live = counts[AHEAD] == 0
    while replicas.end[r] <= until:
        now = replicas.end[r]
        took = now - replicas.begun[r]
        replicas.step[r] += 1
        replicas.kv[r] += replicas.runs[r]
        if replicas.joins[r] == 0 and replicas.partial[r] < 0:  # a prompt in it would be taken for slowness
            replicas.iteration_s[r] += PACE * (took - replicas.iteration_s[r])
        if live:
            replicas.busy_s[r] += took
        if replicas.joins[r] > 0:
            _join(now, r, trace, fleet, replicas, lines, requests, prefixes, dispatchers, clock, counts)
        if replicas.step[r] >= replicas.least[r]:
            _leave(now, r, trace, replicas, lines, requests, dispatchers, clock, counts)
        if replicas.kv[r] > fleet.kv[r] and replicas.runs[r] > 1:
            _preempt(r, trace, fleet, replicas, lines, requests, counts)
        begin(now, r, trace, fleet, replicas, lines, requests, prefixes)


@njit(**INNER)
def begin(now, r, trace, fleet, replicas, lines, requests, prefixes):
    """Begin an iteration: running requests make a token each, prompts from the head of the queue fill the chunk."""
    tokens = work = 0.0
    joins = 0
    if replicas.head[r] < replicas.tail[r]:
        tokens, work, joins = _prefill(r, trace, fleet, replicas, lines, requests, prefixes)
    replicas.joins[r] = joins
    runs = replicas.runs[r]
    replicas.begun[r] = now
    if runs == 0 and tokens == 0.0:
        replicas.end[r] = NEVER
        return
    took = (tokens + work * fleet.attention[r]) / fleet.prefill[r] + fleet.base_s[r]
    took += fleet.request_s[r] * runs + fleet.token_s[r] * replicas.kv[r]
    replicas.end[r] = now + replicas.slow[r] * took


@njit(**INNER)
def _prefill(r, trace, fleet, replicas, lines, requests, prefixes):
    """Prompt tokens of this iteration, the same by their context, and how many prompts end with it."""
    queue, size = lines.queue[r], lines.queue.shape[1]
    room = fleet.chunk[r] - replicas.runs[r]
    tokens = work = 0.0
    joins = 0
    while room > 0.0 and replicas.head[r] < replicas.tail[r] and joins < JOINING:
        if replicas.runs[r] + joins >= fleet.seats[r]:
            break
        i = np.int64(queue[replicas.head[r] % size])
        need = trace.prompt[i] + requests.made[i]
        if replicas.partial[r] != i:
            alone = replicas.runs[r] == 0 and joins == 0
            if replicas.kv[r] + need > FULL * fleet.kv[r] and not alone:
                break
            found = cached(r, i, trace, prefixes)
            replicas.kv[r] += need
            replicas.waiting_tokens[r] -= found
            requests.found[i], requests.left[i] = found, need - found
            replicas.partial[r] = i
        part = min(room, requests.left[i])
        work += part * (need - requests.left[i] + 0.5 * part)
        requests.left[i] -= part
        replicas.waiting_tokens[r] -= part
        room -= part
        tokens += part
        if requests.left[i] > 0.0:
            break
        lines.joining[r, joins] = i
        joins += 1
        replicas.head[r] += 1
        replicas.partial[r] = -1
    return tokens, work, joins


@njit(**INLINE)
def cached(r, i, trace, prefixes):
    """Prompt tokens of request i that replica r has cached; the last token is always computed."""
    known, row = 0, prefixes.has[r]
    for b in range(trace.first[i], trace.first[i + 1]):
        if not row[trace.block[b]]:
            break
        known += 1
    return min(known * BLOCK, trace.prompt[i] - 1.0)


@njit(**INNER)
def _join(now, r, trace, fleet, replicas, lines, requests, prefixes, dispatchers, clock, counts):
    """Prompts that ended give their first token and run."""
    step = replicas.step[r]
    for j in range(replicas.joins[r]):
        i = np.int64(lines.joining[r, j])
        replicas.kv[r] += 1.0
        requests.made[i] += 1.0
        if counts[AHEAD] == 0:
            _keep(r, i, trace, fleet, prefixes)
            if np.isnan(requests.first[i]):
                _first_token(now, r, i, trace, replicas, lines, requests, dispatchers)
        if requests.made[i] >= trace.output[i]:
            _done(now, r, i, trace, replicas, lines, requests, dispatchers, clock, counts)
            continue
        requests.from_step[i], requests.done_step[i] = step, step + trace.output[i] - np.int64(requests.made[i])
        lines.running[r, replicas.runs[r]] = i
        replicas.runs[r] += 1
        replicas.least[r] = min(replicas.least[r], requests.done_step[i])
    replicas.joins[r] = 0


@njit(**INNER)
def _first_token(now, r, i, trace, replicas, lines, requests, dispatchers):
    """What is seen where the first token comes: by its dispatcher, and by the replica, for probes."""
    requests.first[i] = now
    own = dispatchers.own[trace.dispatcher[i], r]
    own[OWN_TOKENS] -= trace.prompt[i] - requests.hit[i]
    own[OWN_WAITING] -= 1.0
    own[OWN_KV] += trace.prompt[i]
    slot = min(requests.there[i] // 2, LATE_AT - 1)
    known, took = lines.first_s[r, slot], now - requests.sent[i]
    lines.first_s[r, slot] = took if known == 0.0 else known + 0.2 * (took - known)


@njit(**INNER)
def _done(now, r, i, trace, replicas, lines, requests, dispatchers, clock, counts):
    """The last token."""
    replicas.kv[r] -= trace.prompt[i] + trace.output[i]
    if counts[AHEAD] == 0:
        d = trace.dispatcher[i]
        own = dispatchers.own[d, r]
        requests.last[i] = now
        own[REQUESTS] -= 1.0
        own[OWN_KV] -= trace.prompt[i]
        dispatchers.traffic.output[d] += 0.01 * (trace.output[i] - dispatchers.traffic.output[d])
        clock[ENDED] = max(clock[ENDED], now)
        counts[DONE] += 1


@njit(**INNER)
def _leave(now, r, trace, replicas, lines, requests, dispatchers, clock, counts):
    """Running requests that are done leave; the others keep their order."""
    step, kept, least = replicas.step[r], 0, np.int64(2**62)
    for j in range(replicas.runs[r]):
        i = np.int64(lines.running[r, j])
        if requests.done_step[i] <= step:
            _done(now, r, i, trace, replicas, lines, requests, dispatchers, clock, counts)
        else:
            lines.running[r, kept] = i
            kept += 1
            least = min(least, requests.done_step[i])
    replicas.runs[r], replicas.least[r] = kept, least


@njit(**INNER)
def _preempt(r, trace, fleet, replicas, lines, requests, counts):
    """Newest first, running requests go back to the head of the queue, behind a prompt that is begun."""
    size = lines.queue.shape[1]
    while replicas.kv[r] > fleet.kv[r] and replicas.runs[r] > 1:
        replicas.runs[r] -= 1
        i = np.int64(lines.running[r, replicas.runs[r]])
        requests.made[i] += replicas.step[r] - requests.from_step[i]
        held = trace.prompt[i] + requests.made[i]
        replicas.kv[r] -= held
        replicas.waiting_tokens[r] += held
        replicas.head[r] -= 1
        head = replicas.head[r]
        if replicas.partial[r] >= 0:
            lines.queue[r, head % size] = replicas.partial[r]
            head += 1
        lines.queue[r, head % size] = i
        if counts[AHEAD] == 0:
            counts[PREEMPTED] += 1
    least = np.int64(2**62)
    for j in range(replicas.runs[r]):
        least = min(least, requests.done_step[lines.running[r, j]])
    replicas.least[r] = least


@njit(**INNER)
def _keep(r, i, trace, fleet, prefixes):
    """The blocks of request i become the newest that replica r keeps; the oldest beyond its room go."""
    after, before, has = prefixes.after[r], prefixes.before[r], prefixes.has[r]
    newest = len(has) - 2
    oldest = newest + 1
    for b in range(trace.first[i], trace.first[i + 1]):
        k = trace.block[b]
        if has[k]:
            after[before[k]], before[after[k]] = after[k], before[k]
        else:
            has[k] = True
            prefixes.kept[r] += 1
        follows = after[newest]
        after[newest], before[k], after[k], before[follows] = k, newest, follows, k
        if prefixes.kept[r] > fleet.blocks[r]:
            gone = before[oldest]
            before[oldest] = before[gone]
            after[before[gone]] = oldest
            has[gone] = False
            prefixes.kept[r] -= 1


@njit(**INNER)
def forget(r, prefixes):
    """A replica that went down has nothing cached."""
    newest = prefixes.has.shape[1] - 2
    for b in range(newest):
        prefixes.has[r, b] = False
    prefixes.kept[r] = 0
    prefixes.after[r, newest], prefixes.before[r, newest + 1] = newest + 1, newest
