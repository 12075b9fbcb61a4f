r"""What a dispatcher believes of the present load of each replica, compiled.

It knows its own requests exactly, and of the others' what a report of age a said. Between reports others send too, much
as it does itself. The believed load of replica r is

.. math:: own_r + p_r + (x_r - p_r) \rho^{a / T}, \qquad p_r = (1 - \kappa) c_r \sum_s x_s + \kappa (D - 1) own_r

with :math:`x_r` what others had there by the report, :math:`c_r` its share of the fleet's capacity and D dispatchers:
what the report said of the others fades into their total spread by capacity, and into what they would have if they did
as this dispatcher does. :math:`\rho` (what is left of a report after a scrape period) and :math:`\kappa` are given by
the prices (``blend``), or learned online: each new report tells what others truly had, so that they are the least
squares of what the last report, its spread and the own requests would have said. Reports at their face value, reports
corrected by what was sent since, and own requests alone are members with fixed coefficients.

What is learned of speed is each replica's own: its reported time of an iteration without prompts over what the nominal
constants make of what it ran. With prompts in it the time would tell how much waits there, and that many times over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Float
from games.lean import INLINE, INNER, LEAN
from hybridalloc.problems.balancer.core import DISPATCHERS, MEAN_PROMPT
from hybridalloc.problems.balancer.sim import (
    ITERATION_S,
    KV,
    OWN_KV,
    OWN_TOKENS,
    OWN_WAITING,
    REQUESTS,
    RUNNING,
    TOKENS,
    WAITING,
)

REPORT, CORRECTED, OWN, BLEND, LEARNED = range(5)
VIEWS = ("report", "corrected", "own", "blend", "learned")
LOAD = 3  # requests, prompt tokens that wait, tokens in KV memory
SUMS = 5  # of the least squares of two coefficients
LASTS_S = (3.0, 1.0)  # s that a report of requests, of tokens is presumed to last
USUAL = 0.1  # of a running mean, by reports
ALIKE, FIRM = 0.5, 4.0  # before anything is learned: kappa, and how many reports what is presumed counts as


class Knowledge(NamedTuple):
    """What D dispatchers have learned. One of each learns from its own reports alone."""

    at: Float  # (D, R) when the last report that was looked at was taken
    others: Float  # (D, R, LOAD) what others had there by it
    usual: Float  # (D, R, LOAD) part of all that others have which is there, running mean
    sums: Float  # (D, 2, SUMS) of requests (and KV), of tokens
    left: Float  # (D, 2) rho of each after `lag_s`
    alike: Float  # (D, 2) kappa
    lag_s: Float  # (D,) between two reports, running mean
    speed: Float  # (D, R) of a replica: above 1 it is slower than its constants say


def new_knowledge(dispatchers: int, share: Float) -> Knowledge:
    """Nothing yet but the replicas' shares of capacity (R,)."""
    d, replicas, f = dispatchers, len(share), lambda *shape: np.zeros((dispatchers, *shape))
    usual = np.zeros((d, replicas, LOAD)) + np.asarray(share)[:, None]
    return Knowledge(
        f(replicas) - 1.0, f(replicas, LOAD), usual, f(2, SUMS), f(2) + 0.5, f(2) + ALIKE, f(), np.ones((d, replicas))
    )  # fmt: skip


@njit(**LEAN)
def learn(d, now, view, fleet, tokens_told, know):
    """Take in the reports that dispatcher d had not seen yet.

    Args:
        tokens_told: whether reports tell waiting tokens; otherwise waiting requests times the mean prompt.
    """
    total = know.others[d]
    spread, silent = (0.0, 0.0, 0.0), 0
    for r in range(len(view.up)):
        spread = (spread[0] + total[r, 0], spread[1] + total[r, 1], spread[2] + total[r, 2])
        silent += know.at[d, r] < 0.0
    whole = spread  # of all replicas with the reports of this look, where `spread` is as known before it
    changed = False
    for r in range(len(view.up)):
        at = now - view.age_s[r]
        if at <= know.at[d, r] + 1e-9:
            continue
        n, w, k = others_of(view, r, tokens_told)
        if know.at[d, r] >= 0.0 and view.age_s[r] >= 0.0:
            lag = at - know.at[d, r]
            know.lag_s[d] = lag if know.lag_s[d] == 0.0 else know.lag_s[d] + 0.1 * (lag - know.lag_s[d])
            many = view.about[DISPATCHERS] - 1.0
            then = view.then[r]
            waits = then[OWN_TOKENS] if tokens_told else then[OWN_WAITING] * view.about[MEAN_PROMPT]
            usual = know.usual[d, r]
            scale = 1.0 / (1.0 + spread[0] * usual[0]) ** 2
            _square(know.sums[d, 0], scale, n, know.others[d, r, 0], usual[0] * spread[0], many * then[REQUESTS])
            scale = 1.0 / (1000.0 + spread[1] * usual[1]) ** 2
            _square(know.sums[d, 1], scale, w, know.others[d, r, 1], usual[1] * spread[1], many * waits)
            changed = True
        silent -= know.at[d, r] < 0.0
        know.at[d, r] = at
        whole = (whole[0] + n - total[r, 0], whole[1] + w - total[r, 1], whole[2] + k - total[r, 2])
        total[r, 0], total[r, 1], total[r, 2] = n, w, k
        for q in range(LOAD):
            if silent == 0 and whole[q] > 0.0:  # before all have reported a part of what is known is no part of all
                know.usual[d, r, q] += USUAL * (min(total[r, q] / whole[q], 1.0) - know.usual[d, r, q])
        _learn_speed(d, r, view, fleet, know)
    if changed:
        for q in range(2):
            _solve(know.sums[d, q], np.exp(-know.lag_s[d] / LASTS_S[q]), know.left[d], know.alike[d], q)


@njit(**INLINE)
def others_of(view, r, tokens_told):
    """What others had at replica r by the report: requests, prompt tokens that wait, tokens in KV memory."""
    told, then = view.told[r], view.then[r]
    n = max(0.0, told[WAITING] + told[RUNNING] - then[REQUESTS])
    if tokens_told:
        w = max(0.0, told[TOKENS] - then[OWN_TOKENS])
    else:
        w = max(0.0, told[WAITING] - then[OWN_WAITING]) * view.about[MEAN_PROMPT]
    return n, w, max(0.0, told[KV] - then[OWN_KV])


@njit(**INLINE)
def _square(sums, scale, y, stays, spread, alike):
    """One more observation: y = spread + rho (stays - spread) + (1 - rho) kappa (alike - spread)."""
    a, b, z = stays - spread, alike - spread, y - spread
    fresh = 0.005
    sums[0] += scale * a * a - fresh * sums[0]
    sums[1] += scale * a * b - fresh * sums[1]
    sums[2] += scale * b * b - fresh * sums[2]
    sums[3] += scale * a * z - fresh * sums[3]
    sums[4] += scale * b * z - fresh * sums[4]


@njit(**INNER)
def _solve(sums, rho, left, alike, q):
    """The two coefficients of least squares, >= 0 and at most 1 together, held to what was presumed by a few
    reports."""
    u, v = rho, (1.0 - rho) * ALIKE
    firm = FIRM * 0.02
    aa, ab, bb = sums[0] + firm, sums[1], sums[2] + firm
    az, bz = sums[3] + firm * u, sums[4] + firm * v
    det = aa * bb - ab * ab
    x, y = (az * bb - bz * ab) / det, (bz * aa - az * ab) / det
    if x < 0.0 or y < 0.0 or x + y > 1.0:  # the least is on an edge
        best = np.inf
        for edge in range(3):
            if edge == 0:
                s, t = 0.0, min(1.0, max(0.0, bz / bb))
            elif edge == 1:
                s, t = min(1.0, max(0.0, az / aa)), 0.0
            else:
                s = min(1.0, max(0.0, (az - ab - bz + bb) / max(aa - 2.0 * ab + bb, 1e-12)))
                t = 1.0 - s
            value = aa * s * s + 2.0 * ab * s * t + bb * t * t - 2.0 * (az * s + bz * t)
            if value < best:
                best, x, y = value, s, t
    left[q], alike[q] = x, y / max(1.0 - x, 1e-3) if x < 1.0 - 1e-3 else ALIKE
    alike[q] = min(alike[q], 1.0)


@njit(**INLINE)
def _learn_speed(d, r, view, fleet, know):
    told = view.told[r]
    nominal = fleet.base_s[r] + fleet.request_s[r] * told[RUNNING] + fleet.token_s[r] * told[KV]
    if told[RUNNING] > 0.0:
        know.speed[d, r] += 0.2 * (told[ITERATION_S] / nominal - know.speed[d, r])


@njit(**LEAN)
def believe(kind, d, view, tokens_told, fade, alike, know, load):
    """Fill ``load`` (R, LOAD) with what dispatcher d believes to be at each replica now, itself included.

    Args:
        kind: of :data:`VIEWS`. fade: (2,) s that a report of requests, of tokens lasts; alike: kappa; both for
        ``blend``.
    """
    many = view.about[DISPATCHERS] - 1.0
    n_all = w_all = k_all = 0.0
    for r in range(len(view.up)):
        own = view.own[r]
        waits = own[OWN_TOKENS] if tokens_told else own[OWN_WAITING] * view.about[MEAN_PROMPT]
        if kind == OWN:
            load[r, 0], load[r, 1], load[r, 2] = own[REQUESTS], waits, own[OWN_KV]
            for q in range(LOAD):
                load[r, q] *= many + 1.0
            continue
        if kind == REPORT:
            told = view.told[r]
            load[r, 0] = told[WAITING] + told[RUNNING]
            load[r, 1] = told[TOKENS] if tokens_told else told[WAITING] * view.about[MEAN_PROMPT]
            load[r, 2] = told[KV]
            continue
        n, w, k = others_of(view, r, tokens_told)
        load[r, 0], load[r, 1], load[r, 2] = n, w, k
        n_all, w_all, k_all = n_all + n, w_all + w, k_all + k
    if kind in (OWN, REPORT):
        return
    for r in range(len(view.up)):
        own, age, usual = view.own[r], view.age_s[r], know.usual[d, r]
        waits = own[OWN_TOKENS] if tokens_told else own[OWN_WAITING] * view.about[MEAN_PROMPT]
        if kind == CORRECTED:
            e_n = e_w = 1.0
            a_n = a_w = 0.0
        elif kind == BLEND:
            e_n, e_w = np.exp(-age / fade[0]), np.exp(-age / fade[1])
            a_n = a_w = alike
        elif know.lag_s[d] <= 0.0:
            e_n, e_w = np.exp(-age / LASTS_S[0]), np.exp(-age / LASTS_S[1])
            a_n = a_w = ALIKE
        else:
            since = age / know.lag_s[d]
            e_n, e_w = max(know.left[d, 0], 1e-6) ** since, max(know.left[d, 1], 1e-6) ** since
            a_n, a_w = know.alike[d, 0], know.alike[d, 1]
        load[r, 0] = own[REQUESTS] + _faded(load[r, 0], n_all * usual[0], many * own[REQUESTS], a_n, e_n)
        load[r, 1] = waits + _faded(load[r, 1], w_all * usual[1], many * waits, a_w, e_w)
        load[r, 2] = own[OWN_KV] + _faded(load[r, 2], k_all * usual[2], many * own[OWN_KV], a_n, e_n)


@njit(**INLINE)
def _faded(told, spread, alike, kappa, left):
    presumed = (1.0 - kappa) * spread + kappa * alike
    return presumed + (told - presumed) * left
