"""Decisions of E worlds, compiled: what is seen of those that wait, the game that it makes, and carrying out a plan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Bool, Float
from games.lean import INNER, LEAN
from hybridalloc.problems.balancer.ahead import foresee
from hybridalloc.problems.balancer.belief import Knowledge, believe
from hybridalloc.problems.balancer.chance import uniform
from hybridalloc.problems.balancer.core import ABOUT, PROMPT, WAITED_S, View, copied, hold, look, send
from hybridalloc.problems.balancer.scorer import capacity_of, gumbel
from hybridalloc.problems.balancer.sim import NEVER, OWNED, REPORTED

LEAST = 1e-6  # weight of a request in the game


class Seen(NamedTuple):
    """What the dispatchers of E worlds see of N requests each and of R replicas."""

    up: Bool  # (E, R)
    age_s: Float
    told: Float  # (E, R, REPORTED)
    then: Float  # (E, R, OWNED)
    own: Float
    share: Float  # (E, R)
    kv: Float
    base_s: Float
    prompt: Float  # (E, N), 0 where nobody waits
    waited_s: Float
    hit: Float  # (E, N, R)
    coin: Float  # (E, N, R)
    about: Float  # (E, ABOUT) of the first request
    time_s: Float  # (E,)
    know: Knowledge  # of the dispatcher at hand, with an axis E for its D


def new_seen(e: int, n: int, r: int) -> Seen:
    """Nothing."""
    f = lambda *shape: np.zeros((e, *shape))
    know = Knowledge(f(r), f(r, 3), f(r, 3), f(2, 5), f(2), f(2), f(), f(r) + 1.0)
    return Seen(
        np.zeros((e, r), bool), f(r), f(r, REPORTED), f(r, OWNED), f(r, OWNED), f(r), f(r), f(r), f(n), f(n), f(n, r),
        f(n, r), f(ABOUT), f(), know,
    )  # fmt: skip


@njit(**INNER)
def regard(sim, who, n, e, room, stream, seen):
    """Fill world ``e`` of ``seen`` with what the dispatcher of the requests who[:n] sees; draws a coin for each."""
    view = room.seen
    for j in range(len(who)):
        seen.prompt[e, j] = seen.waited_s[e, j] = 0.0
        for r in range(len(view.up)):
            seen.hit[e, j, r] = 0.0
            seen.coin[e, j, r] = uniform(stream)
    seen.time_s[e] = sim.clock[0]
    for j in range(n - 1, -1, -1):  # the first comes last, and its view stays
        look(sim, who[j], view)
        seen.prompt[e, j], seen.waited_s[e, j] = view.about[PROMPT], view.about[WAITED_S]
        copied(seen.hit[e, j], view.hit)
    for r in range(len(view.up)):
        seen.up[e, r], seen.age_s[e, r] = view.up[r], view.age_s[r]
        copied(seen.told[e, r], view.told[r])
        copied(seen.then[e, r], view.then[r])
        copied(seen.own[e, r], view.own[r])
    copied(seen.about[e], view.about)


@njit(**INNER)
def knows(sim, d, e, know, seen):
    """Fill world ``e`` of ``seen`` with what dispatcher ``d`` has learned."""
    mine = seen.know
    copied(mine.left[e], know.left[d])
    copied(mine.alike[e], know.alike[d])
    copied(mine.speed[e], know.speed[d])
    for r in range(len(mine.speed[e])):
        copied(mine.usual[e, r], know.usual[d, r])
    mine.lag_s[e] = know.lag_s[d]


@njit(**INNER)
def view_of(seen, e, j):
    """World ``e`` of what is seen, of its request j."""
    return View(
        seen.up[e], seen.age_s[e], seen.told[e], seen.then[e], seen.own[e], seen.hit[e, j], seen.about[e]
    )  # fmt: skip


@njit(**LEAN)
def fill_loads(seen, belief, told_tokens, fade, alike, load):
    """``load`` (E, R, LOAD) as believed."""
    for e in range(len(load)):
        view = view_of(seen, e, 0)
        believe(belief, e, view, told_tokens, fade, alike, seen.know, load[e])


@njit(**LEAN)
def fill_game(seen, load, prices, weight, capacity, private, allowed):
    """The congestion game of those that wait, on replicas.

    A request weighs w = tokens p / 1000 + requests, a replica's capacity is its strength S; what is there already, the
    cache, memory and base time are private costs. All of a request's costs are times its own w, which orders its
    options as the scorer does: w (L / S) with L the weights of those that go there now, itself among them.
    """
    games, n, replicas = weight.shape
    for e in range(games):
        for r in range(replicas):
            capacity[e, r] = capacity_of(r, replicas, seen.share[e], seen.know.speed[e], prices)
        for j in range(n):
            p = seen.prompt[e, j]
            if p <= 0.0:
                continue
            w = max(prices.tokens * p / 1000.0 + prices.requests, LEAST)
            private[e, j, 0] = w * prices.hold if _any(seen.up[e]) else 0.0
            for r in range(replicas):
                weight[e, j, r] = w
                allowed[e, j, 1 + r] = seen.up[e, r]
                if not seen.up[e, r]:
                    continue
                there = prices.tokens * (load[e, r, 1] - prices.cache * seen.hit[e, j, r]) / 1000.0
                there = (there + prices.requests * load[e, r, 0]) / capacity[e, r]
                there += prices.memory * max(0.0, (load[e, r, 2] + p) / seen.kv[e, r] - prices.knee)
                there += prices.base * seen.base_s[e, r] * 100.0
                if prices.noise > 0.0:
                    there -= prices.noise * (gumbel(seen.coin[e, j, r]) + np.log(seen.share[e, r]))
                private[e, j, 1 + r] = w * there


@njit(**INNER)
def _any(up):
    some = False
    for r in range(len(up)):
        some |= up[r]
    return some


@njit(**INNER)
def carry_out(sim, who, option, times, refused, ahead):
    """Send or hold the requests ``who`` (N,) by ``option`` (N,), one after the other.

    Args:
        times: (N, 2) filled with s until the first and the last token, were they the last to come (see
            :func:`.ahead.foresee`): of one held or refused what a replica by capacity gives; 0 where none is up.
        refused: (N,) set where the replica is down. ahead: (2,) scratch.
    """
    for j in range(len(who)):
        times[j, 0] = times[j, 1] = 0.0
        refused[j] = False
        if who[j] < 0:
            continue
        if option[j] <= 0:
            _usual(sim, who[j], times[j], ahead)
            hold(sim, who[j])
        else:
            foresee(sim, who[j], option[j] - 1, times[j])
            if times[j, 0] >= NEVER:  # down, and not known to be
                _usual(sim, who[j], times[j], ahead)
                refused[j] = True
            send(sim, who[j], option[j] - 1)


@njit(**INNER)
def _usual(sim, i, times, ahead):
    """Fill ``times`` (2,) with what a replica drawn by capacity would give request i now; 0 where none is up.

    The least would make waiting look better than every choice that is not the best, and who learns from it would wait
    for ever.
    """
    times[0] = times[1] = 0.0
    up = 0.0
    for r in range(len(sim.replicas.end)):
        foresee(sim, i, r, ahead)
        if ahead[0] < NEVER:
            times[0] += sim.fleet.share[r] * ahead[0]
            times[1] += sim.fleet.share[r] * ahead[1]
            up += sim.fleet.share[r]
    if up > 0.0:
        times[0], times[1] = times[0] / up, times[1] / up
