"""The certificate's reading of ``mec`` as it is done in every step: :mod:`.audit`, but for what cannot matter.

First each device where it is: its time, its cost there, what serving it takes. Then, for each that might do better, the
options that a lower bound does not rule out (:mod:`.remaining`). Compiled, by the definitions of :mod:`.audit`, and no
solver's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from games.certificate_lists import (
    Findings,
    Lists,
    Taken,
    envious,
    gain_among_places,
    gain_at_loads,
    holders,
    paid_at_loads,
    taken_floors,
)
from games.congestion import Bool, Float
from games.lean import ROOMY
from hybridalloc.problems.mec.arrays import Prices
from hybridalloc.problems.mec.audit import NEPERS, Believed, _rank
from hybridalloc.problems.mec.ears import ears_of, fill_heard
from hybridalloc.problems.mec.reading import LN2, Told, cost_of, in_time_of, own_of, rates_of, serving, soft
from hybridalloc.problems.mec.remaining import HOLDS, LEFT_OUT, PLAYS, listed
from hybridalloc.problems.mec.setting import MecSetting

FEW = 200  # devices
FIELDS = Told._fields[:16]


class Given(NamedTuple):
    """What is read of an allocation."""

    option: Any
    held: Bool
    air: Float
    cpu: Float
    power: Float
    fraction: Float
    air_floor: Float
    cpu_floor: Float


def examine(
    problem: MecSetting, state: Any, allocation: Any, prices: Prices, believed: Believed | None = None
) -> Findings | None:
    """The certificate's findings; None where the reading is :func:`.audit.audit`'s alone: tasks that are shed by
    choice, and batteries with a value."""
    if problem.scenario.sheds or (believed is not None and believed.worth is not None):
        return None
    n, bands = state.reported_gain_db.shape
    b = Believed(np.empty((n, bands, 0)), state.queue_s, state.air_queue_s) if believed is None else believed
    fields: list[Any] = [getattr(state, name) for name in FIELDS]
    told = Told._make([*fields, b.cpu_wait_s, b.air_wait_s, b.rates])
    shares, floors = allocation.shares, allocation.floors
    real = (
        shares["air"], shares["cpu"], allocation.power, allocation.fraction, floors["air"], floors["cpu"],
    )  # fmt: skip
    given = Given(
        np.ascontiguousarray(allocation.option, np.int64), np.ascontiguousarray(allocation.held, np.bool_),
        *[np.ascontiguousarray(x, np.float64) for x in real],
    )  # fmt: skip
    seated, played = bool(allocation.seated), bool(allocation.played)
    if n < FEW:  # where nobody was left out, which is usual, little is to be brought out of the compiled code
        in_time, by_reports, home, regret, left_out = _judge(problem.physics, told, prices, given, seated, played)
        if not left_out:
            return Findings(in_time, by_reports, home, regret, ())
    t, lists, regret, left_out = _examine(problem.physics, told, prices, given, seated, played)
    envy = _envy(problem, state, t, lists) if left_out else ()
    return Findings(t.in_time, t.by_reports, t.home, regret, envy)


def _envy(problem: MecSetting, state: Any, t: Taken, lists: Lists) -> tuple[int, ...]:
    out = np.flatnonzero(t.live & ~t.home & ~t.in_time & ~t.held & (np.diff(lists.start) > 0))
    has, floor = (t.held & ~t.home, t.floor) if t.held.any() else taken_floors(t)
    found = np.zeros(len(out), bool)
    envious(t, lists, out, _rank(problem, state), has, floor, found)
    return tuple(out[found].tolist())


@njit(**ROOMY)
def _judge(p, s, prices, g, seated, played):
    """What is told of :func:`_examine` where nobody that was left out has any option listed."""
    t, _, regret, left_out = _examine(p, s, prices, g, seated, played)
    return t.in_time, t.by_reports, t.home, regret, left_out


@njit(**ROOMY)
def _examine(p, s, prices, g, seated, played):
    """Where everybody is, the options listed, the regret, and whether anybody that was left out has any listed."""
    n, bands = s.reported_gain_db.shape
    servers = len(s.server_hz)
    per = max(bands // max(servers, 1), 1)
    values = max(s.rates.shape[2], 1)
    leaks = p.interference and prices.leakage != 0.0 and servers > 0
    ears, loud = ears_of(p, s, leaks), np.log(p.nominal_w / p.noise_w)
    scale, heard = np.empty(bands), np.zeros(bands)
    for b in range(bands):
        scale[b] = loud - ears.rise[b]
    home, in_time, by_reports = np.zeros(n, np.bool_), np.ones(n, np.bool_), np.ones(n, np.bool_)
    resource, weight, private = np.full((n, 2), -1), np.zeros((n, 2)), np.zeros(n)
    seconds, slack, share, floor = np.zeros((n, 2)), np.zeros(n), np.empty((n, 2)), np.empty((n, 2))
    capacity, toll = np.ones(bands + servers), np.full(bands + servers, prices.toll)
    for k in range(servers):
        capacity[bands + k] = s.server_hz[k]
    stays, least, watts = np.zeros(n), np.ones(n), np.zeros(n)
    why = np.zeros(n, np.int64)
    rates, face = np.empty(values), np.empty(1)
    for i in range(n):
        share[i, 0], share[i, 1] = g.air[i], g.cpu[i]
        floor[i, 0], floor[i, 1] = g.air_floor[i], g.cpu_floor[i]
        if not s.active[i]:
            continue
        home[i], stays[i], least[i], watts[i] = own_of(p, s, prices, i)
        private[i] = stays[i]
        o = g.option[i]
        if 0 < o <= bands:
            b, k = o - 1, (o - 1) // per
            rates_of(p, s, scale, i, b, rates)
            resource[i, 0], resource[i, 1] = b, bands + k
            if leaks:
                fill_heard(s, ears, loud, i, heard)
            private[i], weight[i, 0], weight[i, 1] = cost_of(p, s, prices, heard[b], i, b, per, rates)
            seconds[i, 0], seconds[i, 1], slack[i] = serving(
                p, s, prices, i, b, k, home[i], least[i], watts[i], rates
            )  # fmt: skip
            face[0] = p.band_hz / LN2 * soft(NEPERS * s.reported_gain_db[i, b] + scale[b]) + 1e4
        in_time[i] = in_time_of(p, s, rates, s.cpu_wait_s, s.air_wait_s, prices.caution, g, i, per)
        by_reports[i] = in_time[i]
        if s.rates.shape[2]:
            by_reports[i] = in_time_of(p, s, face, s.queue_s, s.air_queue_s, prices.caution, g, i, per)
        if played and not seated:
            why[i] |= PLAYS
        elif played and g.held[i]:
            why[i] |= HOLDS
        if not home[i] and not in_time[i] and not g.held[i]:
            why[i] |= LEFT_OUT
    t = Taken(
        g.option, s.active, home, g.held, in_time, by_reports, resource, weight, private, seconds, slack, share, floor,
        capacity, toll,
    )  # fmt: skip
    paid, load = np.zeros(n), np.zeros(bands + servers)
    h = holders(t, paid)
    if not seated:
        paid_at_loads(t, load, paid)
    lists, left_out = listed(p, s, prices, t, why, paid, stays, least, watts, ears, scale, leaks)
    regret = np.inf
    if played:
        regret = gain_among_places(t, lists, h, paid) if seated else gain_at_loads(t, lists, load, paid)
    return t, lists, regret, left_out
