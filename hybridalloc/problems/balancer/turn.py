"""One decision of one world, compiled as a whole: carried out, on to the next, what ended told, what is seen next.

A call from Python unpacks some ninety arrays, which takes longer than what is done with them: hence one call.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import INNER, LEAN
from hybridalloc.problems.balancer.belief import learn
from hybridalloc.problems.balancer.core import advance, gathered
from hybridalloc.problems.balancer.decide import carry_out, knows, regard
from hybridalloc.problems.balancer.sim import ENDED, NOW, RETRIED

# what is counted of a decision, (TOLD,)
TOLD_NAMES = ("done", "first_sum", "last_sum", "prompt", "found", "busy_s", "room_s", "sent", "held", "retried")
DONE, FIRST_SUM, LAST_SUM, PROMPTS, FOUND, BUSY_S, ROOM_S, SENT, HELD, RETRIES = range(10)


@njit(**LEAN)
def turn(sim, k, who, option, tokens_told, counted, room, coin, ended, fresh, seen, times, refused, samples, told, by):
    """Carry out a plan in world ``k`` of ``seen``, and go on until the next request is to be decided.

    Args:
        who: (N,) requests that are decided, -1 for none; filled with those that wait next, the first of one dispatcher.
        option: (N,) 1 + the replica, 0 to wait. tokens_told: see :func:`.belief.learn`.
        counted: requests from this one on count. room: of the dispatchers, see :class:`.rules.Room`. coin: a stream.
        ended: (Q,) requests whose end was told, marked. fresh: (Q,) scratch.
        times, refused: filled as by :func:`.decide.carry_out`.
        samples: (2, OUTCOMES) filled with s until the first and the last token of those that ended and count.
        told: (TOLD,) filled with what is counted. by: (2, D) added to: their tokens and s by dispatcher.

    Returns:
        s that passed; less 0 where nobody is left to decide.
    """
    began, busy, lost = sim.clock[NOW], _busy(sim), sim.counts[RETRIED]
    carry_out(sim, who, option, times, refused, room.times)
    for j in range(len(who)):
        told[SENT] += option[j] > 0
        told[HELD] += option[j] <= 0 and who[j] >= 0
    over = go_on(sim, k, who, tokens_told, room, coin, seen)
    end = max(sim.clock[ENDED], sim.clock[NOW]) if over else sim.clock[NOW]
    elapsed = max(end - began, 1e-6)
    told[BUSY_S], told[ROOM_S] = _busy(sim) - busy, elapsed * len(sim.replicas.end)
    told[RETRIES] = sim.counts[RETRIED] - lost
    _tell(sim, counted, ended, fresh, samples, told, by)
    return -elapsed if over else elapsed


@njit(**LEAN)
def go_on(sim, k, who, tokens_told, room, coin, seen):
    """On to the next decision of world ``k``: fills ``who`` and its part of ``seen``.

    Returns:
        whether it is over: all are done, or nobody can be served any more.
    """
    i = advance(sim)
    for j in range(len(who)):
        who[j] = -1
    if i < 0:
        for j in range(len(who)):
            seen.prompt[k, j] = seen.waited_s[k, j] = 0.0
            for r in range(len(sim.replicas.end)):
                seen.hit[k, j, r] = 0.0
        seen.time_s[k] = max(sim.clock[NOW], sim.clock[ENDED])
        return True
    n = gathered(sim, i, who)
    d = sim.trace.dispatcher[i]
    regard(sim, who, n, k, room, coin, seen)
    learn(d, sim.clock[NOW], room.seen, sim.fleet, tokens_told, room.know)
    knows(sim, d, k, room.know, seen)
    return False


@njit(**INNER)
def _busy(sim):
    """Seconds of work of all replicas."""
    total = 0.0
    for r in range(len(sim.replicas.end)):
        total += sim.replicas.busy_s[r]
    return total


@njit(**INNER)
def _tell(sim, counted, ended, fresh, samples, told, by):
    """Count the requests that ended and were not told of yet, in the order in which they did, as many as there is
    room for."""
    trace, requests = sim.trace, sim.requests
    n = 0
    for i in range(len(ended)):
        if ended[i] or not np.isfinite(requests.last[i]):
            continue
        j = n
        while j > 0 and requests.last[fresh[j - 1]] > requests.last[i]:
            fresh[j] = fresh[j - 1]
            j -= 1
        fresh[j] = i
        n += 1
    m = 0
    for j in range(min(n, samples.shape[1])):
        i = fresh[j]
        ended[i] = True
        if i < counted:
            continue
        first, last = requests.first[i] - trace.arrival[i], requests.last[i] - trace.arrival[i]
        samples[0, m], samples[1, m] = first, last
        m += 1
        told[FIRST_SUM] += first
        told[LAST_SUM] += last
        told[PROMPTS] += trace.prompt[i]
        told[FOUND] += requests.found[i]
        by[0, trace.dispatcher[i]] += trace.output[i]
        by[1, trace.dispatcher[i]] += last
    told[DONE] = m
