"""What a decision comes to, were it the last: a replica run ahead by itself, compiled.

Replicas serve first come, first served, so who comes later changes little of it: what is found here, of what truly is
and not of what is reported, is a decision's outcome without the noise of the traffic to come.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import INNER, LEAN
from hybridalloc.problems.balancer.replica import begin, run_until
from hybridalloc.problems.balancer.sim import AHEAD, NEVER, NOW

FAR = 20_000  # iterations that are run ahead at most


@njit(**LEAN)
def foresee(sim, i, r, out):
    """Fill ``out`` (1,) or (2,) with s until the first and the last token of request i, were it sent to replica r now.

    Nobody comes after it. What others' prompts would add to the cache meanwhile is left out. NEVER where r is down.
    """
    trace, fleet, replicas, lines, requests = sim.trace, sim.fleet, sim.replicas, sim.lines, sim.requests
    for k in range(len(out)):
        out[k] = NEVER
    if not replicas.up[r]:
        return
    now, size, spare = sim.clock[NOW], lines.queue.shape[1], sim.spare
    head, tail, joins, runs = replicas.head[r], replicas.tail[r], replicas.joins[r], replicas.runs[r]
    partial, least, step, kv = replicas.partial[r], replicas.least[r], replicas.step[r], replicas.kv[r]
    begun, end, waiting = replicas.begun[r], replicas.end[r], replicas.waiting_tokens[r]
    iteration_s = replicas.iteration_s[r]
    sim.counts[AHEAD] = 1
    n = _put_aside(i, r, trace, replicas, lines, requests, spare)
    requests.made[i] = 0.0
    lines.queue[r, tail % size] = i
    replicas.tail[r] += 1
    replicas.waiting_tokens[r] += trace.prompt[i]
    if end >= NEVER:
        begin(now, r, trace, fleet, replicas, lines, requests, sim.prefixes)
    first = False
    for _ in range(FAR):
        t = replicas.end[r]
        if t >= NEVER:
            break
        for j in range(replicas.joins[r]):
            if lines.joining[r, j] == i and not first:
                first = True
                out[0] = t - now
        if first and len(out) == 1:
            break
        last = _is_last(i, r, trace, replicas, lines, requests)
        if last:
            out[1] = t - now
            break
        run_until(
            t, r, trace, fleet, replicas, lines, requests, sim.prefixes, sim.dispatchers, sim.clock, sim.counts
        )  # fmt: skip
    replicas.head[r], replicas.tail[r], replicas.joins[r], replicas.runs[r] = head, tail, joins, runs
    replicas.partial[r], replicas.least[r], replicas.step[r], replicas.kv[r] = partial, least, step, kv
    replicas.begun[r], replicas.end[r], replicas.waiting_tokens[r] = begun, end, waiting
    replicas.iteration_s[r] = iteration_s
    sim.counts[AHEAD] = 0
    _put_back(n, r, replicas, lines, requests, spare)


@njit(**INNER)
def _is_last(i, r, trace, replicas, lines, requests):
    """Whether request i makes its last token with the iteration in progress."""
    for j in range(replicas.joins[r]):
        if lines.joining[r, j] == i:
            return requests.made[i] + 1.0 >= trace.output[i]
    if replicas.step[r] + 1 < replicas.least[r]:
        return False
    for j in range(replicas.runs[r]):
        if lines.running[r, j] == i:
            return requests.done_step[i] <= replicas.step[r] + 1
    return False


@njit(**INNER)
def _put_aside(i, r, trace, replicas, lines, requests, spare):
    """Keep what is known of every request at replica r, in order: running, ending their prompts, queued; then i."""
    n, size = 0, lines.queue.shape[1]
    for j in range(replicas.runs[r]):
        n = _note(n, np.int64(lines.running[r, j]), requests, spare)
    for j in range(replicas.joins[r]):
        n = _note(n, np.int64(lines.joining[r, j]), requests, spare)
    for k in range(replicas.head[r], replicas.tail[r]):
        n = _note(n, np.int64(lines.queue[r, k % size]), requests, spare)
    return _note(n, i, requests, spare)


@njit(**INNER)
def _note(n, i, requests, spare):
    spare.request[n] = i
    spare.from_step[n], spare.done_step[n] = requests.from_step[i], requests.done_step[i]
    spare.left[n], spare.made[n], spare.found[n] = requests.left[i], requests.made[i], requests.found[i]
    return n + 1


@njit(**INNER)
def _put_back(n, r, replicas, lines, requests, spare):
    """As it was before; counts of the replica are back already."""
    size, k = lines.queue.shape[1], 0
    for k in range(n):
        i = spare.request[k]
        requests.from_step[i], requests.done_step[i] = spare.from_step[k], spare.done_step[k]
        requests.left[i], requests.made[i] = spare.left[k], spare.made[k]
        requests.found[i] = spare.found[k]
    at = 0
    for j in range(replicas.runs[r]):
        lines.running[r, j] = spare.request[at]
        at += 1
    for j in range(replicas.joins[r]):
        lines.joining[r, j] = spare.request[at]
        at += 1
    for k in range(replicas.head[r], replicas.tail[r]):
        lines.queue[r, k % size] = spare.request[at]
        at += 1
