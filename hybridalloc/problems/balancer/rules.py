"""The field's routers, compiled: each fills what sending the request to a replica costs; the least is taken.

As shipped they divide nothing by capacity, ``capacity`` = 1 makes them. ``reads`` says what queues they read: reports,
reports corrected by what was sent since, or their own requests alone.

Sources: two choices: Mitzenmacher (2001), "The power of two choices in randomized load balancing"; shortest expected
delay, Shenker and Weinrib (1989), "The optimal control of heterogeneous queueing systems"; load interpretation, Dahlin
(2000), "Interpreting stale load information"; prefix affinity with a load guard as in SGLang's router, Zheng et al.
(2024); the weighted scorer as in llm-d and the Gateway API inference
extension; Prequal is :mod:`hybridalloc.problems.balancer.prequal`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Float, Int
from games.lean import INLINE, INNER
from hybridalloc.problems.balancer.ahead import foresee
from hybridalloc.problems.balancer.belief import (
    CORRECTED,
    LOAD,
    OWN,
    Knowledge,
    believe,
    learn,
    new_knowledge,
)
from hybridalloc.problems.balancer.chance import below, uniform
from hybridalloc.problems.balancer.core import DISPATCHERS, GAP_S, PROMPT, View, new_view
from hybridalloc.problems.balancer.prequal import Probes, new_probes, prequal
from hybridalloc.problems.balancer.scorer import cost_of, gumbel
from hybridalloc.problems.balancer.sim import (
    KV,
    NOW,
    OWN_KV,
    OWN_TOKENS,
    REQUESTS,
    RUNNING,
    TOKENS,
    WAITING,
)

(
    RANDOM, ROUND_ROBIN, SHORTEST_QUEUE, LEAST_WORK, TWO_CHOICES, EXPECTED_DELAY, INTERPRETED, PREFIX_AFFINITY,
    WEIGHTED, PREQUAL, OWN_IN_FLIGHT, GAME, CLAIRVOYANT,
) = range(13)  # fmt: skip
RULES = (
    "random", "round_robin", "shortest_queue", "least_work", "two_choices", "expected_delay", "load_interpretation",
    "prefix_affinity", "weighted_scorer", "prequal", "own_in_flight", "game", "clairvoyant",
)  # fmt: skip


class Rule(NamedTuple):
    """A router and its settings; each reads those that its name says."""

    kind: int
    capacity: float = 0.0  # 1: loads are divided by each replica's share
    reads: int = 0  # what loads are read
    a: float = 0.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0


class Room(NamedTuple):
    """What routers remember, and scratch; of D dispatchers and R replicas."""

    seen: View
    know: Knowledge
    turn: Int  # (D,) of round robin
    credit: Float  # (D, R) of weighted round robin
    probes: Probes
    load: Float  # (R, LOAD)
    cost: Float  # (R,)
    part: Float  # (R,)
    flat: Float  # (R,) 1
    fade: Float  # (2,)
    times: Float  # (2,)


def new_room(dispatchers: int, share: Float) -> Room:
    """Nothing remembered; ``share`` (R,) of the capacity."""
    d, r = dispatchers, len(share)
    f = lambda *shape: np.zeros(shape)
    whole = lambda *shape: np.zeros(shape, np.int64)
    return Room(
        new_view(r), new_knowledge(d, share), whole(d), f(d, r), new_probes(d), f(r, LOAD),
        f(r), f(r), np.ones(r), f(2), f(2),
    )  # fmt: skip


@njit(**INLINE)
def choose(sim, i, rule, belief, prices, told_tokens, room, stream):
    """The replica for request i by ``rule``, after ``room.seen`` was looked at; equals at random.

    Args:
        belief, prices: of the game. told_tokens: whether reports tell the prompt tokens that wait.
    """
    view, cost, fleet = room.seen, room.cost, sim.fleet
    share, d = fleet.share, sim.trace.dispatcher[i]
    kind = rule.kind
    if kind == GAME:
        game_costs(d, sim.clock[NOW], view, share, fleet, belief, prices, told_tokens, room, stream)
    elif kind == RANDOM:
        for r in range(len(cost)):
            cost[r] = -np.log(1.0 - uniform(stream)) / (share[r] if rule.capacity > 0 else 1.0)
    elif kind == ROUND_ROBIN:
        _round_robin(d, view, share, rule, room)
    elif kind == INTERPRETED:
        return _interpreted(view, share, rule, sim.law.scrape_s, room, stream)
    elif kind == PREFIX_AFFINITY:
        _prefix_affinity(view, share, rule, cost)
    elif kind == WEIGHTED:
        _weighted(view, share, fleet, rule, cost)
    elif kind == PREQUAL:
        return prequal(sim, d, view, share, rule, room.probes, stream)
    elif kind == CLAIRVOYANT:
        _clairvoyant(sim, i, rule, room)
    else:
        _queues(d, view, share, rule, prices, told_tokens, room, stream)
    picked = least(cost, view.up, stream)
    if kind == GAME and picked >= 0 and cost[picked] > prices.hold:
        picked = -1
    if kind == ROUND_ROBIN and picked >= 0:
        room.credit[d, picked] -= 1.0
        room.turn[d] = picked + 1
    return picked


@njit(**INNER)
def _clairvoyant(sim, i, rule, room):
    """s until the first token and, where ``a`` says, as much of those until the last."""
    for r in range(len(room.cost)):
        foresee(sim, i, r, room.times[:1] if rule.a <= 0.0 else room.times)
        room.cost[r] = room.times[0] + rule.a * room.times[1] if rule.a > 0.0 else room.times[0]


@njit(**INNER)
def least(cost, up, stream):
    """The replica of least cost that is up, equals at random; -1 where none is."""
    best, picked, ties = np.inf, -1, 1
    for r in range(len(cost)):
        if not up[r]:
            continue
        if picked < 0 or cost[r] < best - 1e-12:
            best, picked, ties = cost[r], r, 1
        elif cost[r] <= best + 1e-12:
            ties += 1
            if uniform(stream) * ties < 1.0:
                picked = r
    return picked


@njit(**INLINE)
def game_costs(d, now, view, share, fleet, belief, prices, told_tokens, room, stream):
    """The least cost of the game on what is believed, with its noise."""
    room.fade[0], room.fade[1] = prices.fade_requests, prices.fade_tokens
    learn(d, now, view, fleet, told_tokens, room.know)
    believe(belief, d, view, told_tokens, room.fade, prices.alike, room.know, room.load)
    cost_of(room.load, view, view.about[PROMPT], share, fleet, prices, room.know.speed[d], room.cost)
    if prices.noise > 0.0:
        for r in range(len(room.cost)):
            room.cost[r] -= prices.noise * (gumbel(uniform(stream)) + np.log(share[r]))


@njit(**INNER)
def _round_robin(d, view, share, rule, room):
    """In turn; by capacity smoothly, as nginx has it."""
    replicas = len(room.cost)
    for r in range(replicas):
        if rule.capacity > 0:
            room.credit[d, r] += share[r]
            room.cost[r] = -room.credit[d, r]
        else:
            room.cost[r] = (r - room.turn[d]) % replicas


@njit(**INNER)
def _queues(d, view, share, rule, prices, told_tokens, room, stream):
    """Rules of the length of queues, or of the work in them."""
    kind, cost = rule.kind, room.cost
    if rule.reads == CORRECTED:
        believe(rule.reads, d, view, told_tokens, room.fade, 0.0, room.know, room.load)
    for r in range(len(cost)):
        told, own = view.told[r], view.own[r]
        n, w = told[WAITING] + told[RUNNING], told[TOKENS] + told[KV]
        if rule.reads == OWN:
            n, w = own[REQUESTS], own[OWN_TOKENS] + own[OWN_KV]
        elif rule.reads == CORRECTED:
            n, w = room.load[r, 0], room.load[r, 1] + room.load[r, 2]
        by = share[r] if rule.capacity > 0 or kind == EXPECTED_DELAY else 1.0
        if kind == LEAST_WORK:
            cost[r] = (w + view.about[PROMPT] - view.hit[r]) / by
        elif rule.capacity > 0 or kind == EXPECTED_DELAY:
            cost[r] = (n + 1.0) / by
        else:
            cost[r] = n
    if kind == TWO_CHOICES:
        _keep_two(cost, view.up, stream)


@njit(**INLINE)
def _keep_two(cost, up, stream):
    """All but two that are up, at random, cost too much."""
    alive = 0
    for r in range(len(cost)):
        alive += up[r]
    if alive <= 2:
        return
    one, two = below(stream, alive), below(stream, alive - 1)
    two += two >= one
    k = 0
    for r in range(len(cost)):
        if up[r]:
            if k != one and k != two:
                cost[r] = np.inf
            k += 1


@njit(**INNER)
def _interpreted(view, share, rule, period_s, room, stream):
    """A draw by what would level all loads, given the requests that came since the reports (``b`` = 1, aggressive) or
    that come in a period (basic), ``a`` times as many as counted."""
    replicas, part = len(room.cost), room.part
    came, most = 0.0, 0.0
    for r in range(replicas):
        by = share[r] if rule.capacity > 0 else 1.0 / replicas
        n = view.told[r, WAITING] + view.told[r, RUNNING]
        most = max(most, n / by)
        came += (view.age_s[r] if rule.b > 0.5 else period_s) / replicas
    rate = view.about[DISPATCHERS] / max(view.about[GAP_S], 1e-9)
    came = max(came * rate * (rule.a if rule.a > 0 else 1.0), 1e-9)
    low, high = 0.0, most + came * replicas * replicas + 10.0
    for _ in range(40):
        level, filled = 0.5 * (low + high), 0.0
        for r in range(replicas):
            by = share[r] if rule.capacity > 0 else 1.0 / replicas
            if view.up[r]:
                filled += max(0.0, level * by - view.told[r, WAITING] - view.told[r, RUNNING])
        if filled > came:
            high = level
        else:
            low = level
    total, picked = 0.0, -1
    for r in range(replicas):
        by = share[r] if rule.capacity > 0 else 1.0 / replicas
        part[r] = max(0.0, high * by - view.told[r, WAITING] - view.told[r, RUNNING]) if view.up[r] else 0.0
        total += part[r]
    u = uniform(stream) * total
    for r in range(replicas):
        if view.up[r]:
            picked = r
            u -= part[r]
            if u <= 0.0 and part[r] > 0.0:
                break
    return picked


@njit(**INNER)
def _prefix_affinity(view, share, rule, cost):
    """The longest prefix if it is at least ``c`` of the prompt, the fewest own requests in flight otherwise, or where
    these differ by more than ``a`` and by a factor of more than ``b``."""
    most, fewest, known = 0.0, np.inf, 0.0
    for r in range(len(cost)):
        if view.up[r]:
            n = view.own[r, REQUESTS] / (share[r] * len(cost) if rule.capacity > 0 else 1.0)
            most, fewest, known = max(most, n), min(fewest, n), max(known, view.hit[r])
    guard = most - fewest > rule.a and most > rule.b * fewest
    for r in range(len(cost)):
        if guard or known <= rule.c * view.about[PROMPT]:
            cost[r] = (view.own[r, REQUESTS] + rule.capacity) / (share[r] if rule.capacity > 0 else 1.0)
        else:
            cost[r] = -view.hit[r]


@njit(**INNER)
def _weighted(view, share, fleet, rule, cost):
    """The weighted sum of scores of the prefix ``a``, the queue ``b``, free KV memory ``c`` and own requests ``d``."""
    most, fewest, own = 0.0, np.inf, 0.0
    for r in range(len(cost)):
        by = share[r] * len(cost) if rule.capacity > 0 else 1.0
        if view.up[r]:
            most, fewest = max(most, view.told[r, WAITING] / by), min(fewest, view.told[r, WAITING] / by)
            own = max(own, view.own[r, REQUESTS] / by)
    for r in range(len(cost)):
        by = share[r] * len(cost) if rule.capacity > 0 else 1.0
        queue = 1.0 if most <= fewest else (most - view.told[r, WAITING] / by) / (most - fewest)
        flight = 1.0 if own == 0.0 else 1.0 - view.own[r, REQUESTS] / by / own
        free = 1.0 - view.told[r, KV] / fleet.kv[r]
        cost[r] = -(rule.a * view.hit[r] / view.about[PROMPT] + rule.b * queue + rule.c * free + rule.d * flight)
