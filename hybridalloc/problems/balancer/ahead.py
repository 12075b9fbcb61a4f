"""What a decision comes to, were it the last: a replica run ahead by itself, compiled.

Replicas serve first come, first served, so who comes later changes little of it: what is found here, of what truly is
and not of what is reported, is a decision's outcome without the noise of the traffic to come.
"""

from __future__ import annotations

from numba import njit

from games.lean import LEAN
from hybridalloc.problems.balancer.replica import begin, run_until
from hybridalloc.problems.balancer.sim import NEVER, NOW

FAR = 20_000  # iterations that are run ahead at most


@njit(**LEAN)
def foresee(sim, i, r, first_only, out):
    """Fill ``out`` (2,) with s until the first and the last token of request i, were it sent to replica r now.

    Args:
        first_only: leave the last token out.

    Nobody comes after it. What others' prompts would add to the cache meanwhile is left out. NEVER where r is down.
    """
    trace, fleet, replicas, requests = sim.trace, sim.fleet, sim.replicas, sim.requests
    out[0] = out[1] = NEVER
    if not replicas.up[r]:
        return
    now, size, spare = sim.clock[NOW], replicas.queue.shape[1], sim.spare
    head, tail, joins, runs = replicas.head[r], replicas.tail[r], replicas.joins[r], replicas.runs[r]
    partial, least, step, kv = replicas.partial[r], replicas.least[r], replicas.step[r], replicas.kv[r]
    begun, end, waiting = replicas.begun[r], replicas.end[r], replicas.waiting_tokens[r]
    iteration_s = replicas.iteration_s[r]
    n = _put_aside(i, r, trace, replicas, requests, spare)
    requests.made[i] = 0.0
    replicas.queue[r, tail % size] = i
    replicas.tail[r] += 1
    replicas.waiting_tokens[r] += trace.prompt[i]
    if end >= NEVER:
        begin(now, r, trace, fleet, replicas, requests, sim.prefixes)
    first = False
    for _ in range(FAR):
        t = replicas.end[r]
        if t >= NEVER:
            break
        for j in range(replicas.joins[r]):
            if replicas.joining[r, j] == i and not first:
                first = True
                out[0] = t - now
        if first and first_only:
            break
        last = _is_last(i, r, trace, replicas, requests)
        if last:
            out[1] = t - now
            break
        run_until(
            t, False, r, trace, fleet, replicas, requests, sim.prefixes, sim.dispatchers, sim.clock, sim.counts
        )  # fmt: skip
    replicas.head[r], replicas.tail[r], replicas.joins[r], replicas.runs[r] = head, tail, joins, runs
    replicas.partial[r], replicas.least[r], replicas.step[r], replicas.kv[r] = partial, least, step, kv
    replicas.begun[r], replicas.end[r], replicas.waiting_tokens[r] = begun, end, waiting
    replicas.iteration_s[r] = iteration_s
    _put_back(n, r, replicas, requests, spare)


@njit(**LEAN)
def _is_last(i, r, trace, replicas, requests):
    """Whether request i makes its last token with the iteration in progress."""
    for j in range(replicas.joins[r]):
        if replicas.joining[r, j] == i:
            return requests.made[i] + 1.0 >= trace.output[i]
    if replicas.step[r] + 1 < replicas.least[r]:
        return False
    for j in range(replicas.runs[r]):
        if replicas.running[r, j] == i:
            return requests.done_step[i] <= replicas.step[r] + 1
    return False


@njit(**LEAN)
def _put_aside(i, r, trace, replicas, requests, spare):
    """Keep what is known of every request at replica r, in order: running, ending their prompts, queued; then i."""
    n, size = 0, replicas.queue.shape[1]
    for j in range(replicas.runs[r]):
        n = _note(n, replicas.running[r, j], requests, spare)
    for j in range(replicas.joins[r]):
        n = _note(n, replicas.joining[r, j], requests, spare)
    for k in range(replicas.head[r], replicas.tail[r]):
        n = _note(n, replicas.queue[r, k % size], requests, spare)
    return _note(n, i, requests, spare)


@njit(**LEAN)
def _note(n, i, requests, spare):
    spare.request[n] = i
    spare.number[n, 0], spare.number[n, 1] = requests.from_step[i], requests.done_step[i]
    spare.amount[n, 0], spare.amount[n, 1], spare.amount[n, 2] = requests.left[i], requests.made[i], requests.found[i]
    return n + 1


@njit(**LEAN)
def _put_back(n, r, replicas, requests, spare):
    """As it was before; counts of the replica are back already."""
    size, k = replicas.queue.shape[1], 0
    for k in range(n):
        i = spare.request[k]
        requests.from_step[i], requests.done_step[i] = spare.number[k, 0], spare.number[k, 1]
        requests.left[i], requests.made[i] = spare.amount[k, 0], spare.amount[k, 1]
        requests.found[i] = spare.amount[k, 2]
    at = 0
    for j in range(replicas.runs[r]):
        replicas.running[r, j] = spare.request[at]
        at += 1
    for j in range(replicas.joins[r]):
        replicas.joining[r, j] = spare.request[at]
        at += 1
    for k in range(replicas.head[r], replicas.tail[r]):
        replicas.queue[r, k % size] = spare.request[at]
        at += 1
