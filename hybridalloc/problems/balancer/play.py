"""A whole trace by one router, compiled from end to end, and what came of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Float
from games.lean import LEAN
from hybridalloc.problems.balancer.belief import BLEND
from hybridalloc.problems.balancer.chance import stream_of
from hybridalloc.problems.balancer.core import advance, hold, look, send
from hybridalloc.problems.balancer.rules import GAME, Rule, choose, new_room
from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.problems.balancer.sim import DONE, ENDED, PREEMPTED, RETRIED, Sim

WARM = 0.1  # of a trace's requests, which fill the fleet and are not counted


EVERYONE, ASK, NOBODY = 2**62, -1, np.zeros(0, np.int64)


@njit(**LEAN)
def run(sim, rule, belief, prices, told_tokens, room, stream, who, most, picked):
    """Decide requests by one router: ``who`` (N,) that are at hand, -1 for none, then ``most`` that come, or all.

    Args:
        picked: (N,) filled with the replicas of those at hand, -1 for none. With ``most`` :data:`ASK` that is all: what
            ``room.seen`` says is taken for what is seen, and nothing is sent.
    """
    j = 0
    while j < len(who) or most > 0:
        at_hand = j < len(who)
        if at_hand:
            i = who[j]
            picked[j] = -1
            j += 1
            if i < 0:
                continue
        else:
            i = advance(sim)
            most -= 1
            if i < 0:
                break
        if most != ASK:
            look(sim, i, room.seen)
        r = choose(sim, i, rule, belief, prices, told_tokens, room, stream)
        if at_hand:
            picked[j - 1] = r
        if most == ASK:
            continue
        if r < 0:
            hold(sim, i)
        else:
            send(sim, i, r)


class Router(NamedTuple):
    """A rule, and for the game what it believes and charges."""

    rule: Rule = Rule(GAME)
    belief: int = BLEND
    prices: BalancerPrices = BalancerPrices()
    told_tokens: bool = False


def play(sim: Sim, router: Router, seed: int = 0) -> dict[str, float]:
    """Run a fresh fleet through its trace; :func:`measure`."""
    room = new_room(sim.law.dispatchers, sim.fleet.share)
    kind, capacity, reads, *rest = router.rule
    rule = Rule(int(kind), float(capacity), int(reads), *map(float, rest))
    prices = BalancerPrices(*map(float, router.prices))
    stream = stream_of(seed, 5)
    run(sim, rule, int(router.belief), prices, bool(router.told_tokens), room, stream, NOBODY, EVERYONE, NOBODY)
    return measure(sim)


def measure(sim: Sim) -> dict[str, float]:
    """Times in s of the requests after the first tenth. Slowness is the time to the last token by token of output;
    Jain's index is of each request's tokens/s."""
    q, trace = sim.requests, sim.trace
    late = slice(int(WARM * len(trace.arrival)), None)
    first, last = (q.first - trace.arrival)[late], (q.last - trace.arrival)[late]
    rate = trace.output[late] / last
    busy = sim.replicas.busy_s / max(sim.clock[ENDED], 1e-9)
    each = (last - first) / np.maximum(trace.output[late] - 1, 1)
    return {
        "ttft_mean": _mean(first), "ttft_p50": _quantile(first, 0.5), "ttft_p95": _quantile(first, 0.95),
        "ttft_p99": _quantile(first, 0.99), "e2e_mean": _mean(last), "e2e_p95": _quantile(last, 0.95),
        "e2e_p99": _quantile(last, 0.99), "tpot": _mean(each), "throughput": len(trace.arrival) / sim.clock[ENDED],
        "utilisation": float(busy.mean()), "jain": float(rate.sum() ** 2 / (len(rate) * (rate**2).sum())),
        "hits": float(q.found[late].sum() / trace.prompt[late].sum()), "preempted": float(sim.counts[PREEMPTED]),
        "retried": float(sim.counts[RETRIED]), "done": float(sim.counts[DONE]),
    }  # fmt: skip


def _mean(x: Float) -> float:
    return float(x.mean()) if len(x) else float("nan")


def _quantile(x: Float, share: float) -> float:
    return float(np.quantile(x, share)) if len(x) else float("nan")
