r"""What a step computes on the exact flow: the model about a plan, rounds of it, the local reaction, droops. Compiled.

Inverter i feeds in reactive power :math:`q_i` within :math:`\pm\sqrt{s_i^2 - p_i^2}`. At the toll :math:`\tau` it is
charged :math:`(1 + \tau)` times what its q adds to the feeder's loss, less what its own q alone would lose counted
twice, and a little for wear:

.. math:: F_i(q) = \tfrac{1+\tau}{2}\, \partial loss / \partial q_i + (1 - \tau) R_{ii} q_i + 2 k q_i,

so that at :math:`\tau = 1` all minimise the loss and at 0 each its own part of :math:`q'Rq`. With :math:`R_{ij}` the
resistance that the paths to i and j share, the slope of F is :math:`J = (1+\tau) R + (1-\tau) diag R + 2 k I`, which is
symmetric: the game has a potential. A voltage out of its band is charged to all, :math:`W [v - high]_+^2 / 2`.

The loss's slope and the voltages' are those of the exact flow about a plan: differences where there are few inverters
(``EXACT``); of many those of the flow's own currents and of :math:`X / v^3`, and the game on the feeder's tree
(:mod:`hybridalloc.problems.voltage.many`). A few rounds of the game on that model, each halved until the potential of
the exact flow falls, end at the equilibrium of the believed state; the coordinator plays the model about it.

Source: Farivar and Low (2013) and Baran and Wu (1989) for R and X; the local reaction is the volt-var curve with a
deadband of IEEE 1547-2018, 5.3.3.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.congestion import Float, Int
from games.lean import LEAN, ROOMY
from games.quadratic_newton import descend
from hybridalloc.problems.voltage.feeder import Feeder
from hybridalloc.problems.voltage.flow import magnitudes, sweep

KW, MPU = 1e3, 1e3  # kW a MW; thousandths of a p.u.
EXACT = 32  # inverters up to which slopes are differences of exact flows
NUDGE = 1e-4  # Mvar
ROUGH = 1e-7  # of the levels, to which a round is played
PRECISE, CLOSE = 1e-11, 1e-9  # p.u., of a flow whose slope is taken, and of one that is looked at
STILL = 1e-5  # Mvar, at which a reaction has come to rest
REACTIONS = 400


@njit(**ROOMY)
def shared_path(parent: Int, weight: Float, inverter: Int) -> Float:
    """(B, N) sum of ``weight`` over the branches that the paths from the substation to a bus and to an inverter share:
    on the inverter's path it grows, off it it is the parent's."""
    n = len(parent)
    out = np.zeros((n, len(inverter)))
    on = np.zeros(n, np.bool_)
    for i in range(len(inverter)):
        on[:] = False
        k = inverter[i]
        while k:
            on[k] = True
            k = parent[k]
        for k in range(1, n):
            out[k, i] = out[parent[k], i] + (weight[k] if on[k] else 0.0)
    return out


@njit(**ROOMY)
def path_sum(parent: Int, weight: Float) -> Float:
    """(B,) sum of ``weight`` over the branches of the path to each bus."""
    out = np.zeros(len(parent))
    for k in range(1, len(parent)):
        out[k] = out[parent[k]] + weight[k]
    return out


@njit(**LEAN)
def injected(tree, inverter, p, q, level, tolerance, net, work, voltage, near):
    """Loss (MW) with ``level`` (N,) Mvar fed in at the inverters, inf where there is no flow; ``net`` (B,) is room.
    ``near``: it is sought from the flow that ``work`` holds, otherwise from flat voltages."""
    for k in range(len(q)):
        net[k] = q[k]
    for i in range(len(inverter)):
        net[inverter[i]] -= level[i]
    for k in range(len(q)):
        if not near:
            work[0, k], work[1, k] = tree.slack, 0.0
    if sweep(tree, p, net, tolerance, work) < 0:
        return np.inf
    return magnitudes(tree, work, voltage)


@njit(**LEAN)
def slopes(tree, inverter, p, q, level, loss, voltage, net, work, near, slope, gain):
    """What a Mvar of each inverter adds to the loss (N,) and to voltages (B, N), about a flow that ``work`` holds, by
    differences of exact flows."""
    for i in range(len(inverter)):
        level[i] += NUDGE
        more = injected(tree, inverter, p, q, level, PRECISE, net, work, near, np.bool_(True))
        level[i] -= NUDGE
        slope[i] = (more - loss) / NUDGE
        for k in range(len(voltage)):
            gain[k, i] = (near[k] - voltage[k]) / NUDGE


@njit(**LEAN)
def slopes_along(tree, work, voltage, slope):
    """Fill ``slope`` (B,): what a Mvar at each bus adds to the loss, about a flow that ``work`` holds, by its currents:
    down the tree, reactive power on the branch times its resistance, twice."""
    vr, vi, jr, ji = work[0], work[1], work[2], work[3]
    slope[0] = 0.0
    for k in range(1, len(voltage)):
        sent = vi[k] * jr[k] - vr[k] * ji[k]
        slope[k] = slope[tree.parent[k]] - 2.0 * tree.r[k] * sent / (voltage[k] * voltage[k])


@njit(**LEAN)
def potential(loss, voltage, level, resistance, toll, wear, low, high, weight):
    """Of the game on the exact flow, see the module."""
    f = (1.0 + toll) / 2.0 * loss
    for i in range(len(level)):
        f += ((1.0 - toll) / 2.0 * resistance[i] + wear) * level[i] * level[i]
    for k in range(1, len(voltage)):
        over = max(voltage[k] - high[k], low[k] - voltage[k], 0.0)
        f += 0.5 * weight * over * over
    return f


@njit(**ROOMY)
def model_about(
    tree, inverter, shared_r, p, q, most, low, high, toll, wear, weight, rounds, level, jacobian, linear,
    constraint, limit, found, voltage,
):  # fmt: skip
    """Rounds of the game on the believed states, and the model about where they end, for E worlds.

    Args:
        p, q: (E, B) believed net loads without the inverters' q. most: (E, N) Mvar. low, high: (E, B) band.
        level: (E, N) where to begin; overwritten by where the rounds end.
        jacobian (E, N, N), linear (E, N), constraint (E, 2 (B - 1), N), limit (E, 2 (B - 1)): overwritten by the game.
        found: (E,) overwritten: whether the believed state has a flow at all. voltage: (E, B) about which it is.
    """
    n, m = p.shape[1], len(inverter)
    rows = n - 1
    net, work, near = np.empty(n), np.empty((4, n)), np.empty(n)
    slope, gain, trial = np.empty(m), np.empty((n, m)), np.empty(m)
    own, J = np.empty(m), np.empty((1, m, m))
    for i in range(m):
        own[i] = shared_r[inverter[i], i]
        for j in range(m):
            J[0, i, j] = (1.0 + toll) * shared_r[inverter[i], j]
        J[0, i, i] += (1.0 - toll) * own[i] + 2.0 * wear
    scale, one = np.empty((1, m)), np.zeros(1, np.int64)
    for i in range(m):
        scale[0, i] = max(J[0, i, i], 1e-12)
    step, price, force = np.empty((1, m)), np.empty((1, 2 * rows)), np.empty((1, m))
    under, over = np.empty((1, m)), np.empty((1, m))
    A, b, held_at = np.empty((1, 2 * rows, m)), np.empty((1, 2 * rows)), np.zeros((1, 2 * rows))
    weights = np.full((1, 2 * rows), weight)
    for e in range(len(p)):
        x, v = level[e], voltage[e]
        for i in range(m):
            x[i] = min(max(x[i], -most[e, i]), most[e, i])
        loss = injected(tree, inverter, p[e], q[e], x, PRECISE, net, work, v, np.bool_(False))
        for _ in range(8):  # nearer to nothing until there is a flow
            if loss < np.inf:
                break
            for i in range(m):
                x[i] *= 0.5
            loss = injected(tree, inverter, p[e], q[e], x, PRECISE, net, work, v, np.bool_(False))
        found[e] = loss < np.inf
        if not found[e]:
            for i in range(m):
                linear[e, i] = 0.0
                for j in range(m):
                    jacobian[e, i, j] = J[0, i, j]
            constraint[e] = 0.0
            limit[e] = 0.0
            continue
        value = potential(loss, v, x, own, toll, wear, low[e], high[e], weight)
        turn = 0
        while True:
            slopes(tree, inverter, p[e], q[e], x, loss, v, net, work, near, slope, gain)
            for i in range(m):
                force[0, i] = (1.0 + toll) / 2.0 * slope[i] + ((1.0 - toll) * own[i] + 2.0 * wear) * x[i]
                under[0, i], over[0, i] = -most[e, i] - x[i], most[e, i] - x[i]
                step[0, i] = 0.0
            for k in range(rows):
                for i in range(m):
                    A[0, k, i], A[0, rows + k, i] = gain[k + 1, i], -gain[k + 1, i]
                b[0, k], b[0, rows + k] = high[e, k + 1] - v[k + 1], v[k + 1] - low[e, k + 1]
            if turn >= rounds:
                break
            price[:] = 0.0
            descend(one, J, force, under, over, A, b, weights, held_at, scale, step, price, ROUGH)
            length, moved, after, reached = 1.0, False, 0.0, 0.0
            for _ in range(12):
                for i in range(m):
                    trial[i] = x[i] + length * step[0, i]
                after = injected(tree, inverter, p[e], q[e], trial, PRECISE, net, work, near, after < np.inf)
                if after < np.inf:
                    reached = potential(after, near, trial, own, toll, wear, low[e], high[e], weight)
                    if reached < value - 1e-12:
                        moved = True
                        break
                length *= 0.5
            if not moved:  # at rest
                break
            turn = rounds if value - reached < 1e-8 * max(abs(value), 1e-6) else turn + 1
            value, loss = reached, after
            for i in range(m):
                x[i] = trial[i]
            for k in range(n):
                v[k] = near[k]
        for i in range(m):
            s = force[0, i]
            for j in range(m):
                jacobian[e, i, j] = J[0, i, j]
                s -= J[0, i, j] * x[j]
            linear[e, i] = s
        for k in range(2 * rows):
            s = b[0, k]
            for i in range(m):
                constraint[e, k, i] = A[0, k, i]
                s += A[0, k, i] * x[i]
            limit[e, k] = s


@njit(**ROOMY)
def react_many(tree, inverter, p, q, plan, most, low, high, slope, damping, turns, voltage, loss, level, done):
    """The flow after the inverters' local reaction to it, E worlds: each moves its plan by ``slope`` Mvar/p.u. times
    what its own voltage is out of [low, high] (E, N), to rest. A slope of 0 holds the plan. ``level``: where to begin.

    Fills voltage (E, B), loss (E,), level (E, N) and done (E,): flows looked at, -1 where there is none.
    """
    n, m = p.shape[1], len(inverter)
    net, work, v = np.empty(n), np.empty((4, n)), np.empty(n)
    for e in range(len(p)):
        x = level[e]
        for i in range(m):
            x[i] = min(max(level[e, i], -most[e, i]), most[e, i])
        rate = damping
        lost = np.inf
        count = 0
        for turn in range(turns if slope > 0.0 else 1):
            lost = injected(tree, inverter, p[e], q[e], x, CLOSE, net, work, v, lost < np.inf)
            count = turn + 1
            worst = 0.0
            if not lost < np.inf:
                if slope == 0.0:
                    break
                for i in range(m):
                    x[i] *= 0.5
                continue
            if slope == 0.0:
                break
            for i in range(m):
                at = v[inverter[i]]
                want = plan[e, i]
                if at > high[e, i]:
                    want -= slope * (at - high[e, i])
                elif at < low[e, i]:
                    want += slope * (low[e, i] - at)
                want = min(max(want, -most[e, i]), most[e, i])
                change = rate * (want - x[i])
                worst = max(worst, abs(change))
                x[i] += change
            if worst < STILL * rate:
                break
        lost = injected(tree, inverter, p[e], q[e], x, PRECISE, net, work, v, lost < np.inf)
        loss[e] = lost
        done[e] = count if lost < np.inf else -1
        for k in range(n):
            voltage[e, k] = v[k] if lost < np.inf else np.nan


@njit(**ROOMY)
def droop_many(tree, inverter, p, q, seen, most, share, points, values, by_rating, gain, turns, level):
    """Volt-var droops iterated within the step, E worlds: each moves by ``gain`` of what the curve (points, values)
    says at its voltage less where it is. turns = 1 with ``seen`` (E, N): one move on voltages read before, as it could
    be run. ``level`` (E, N): where to begin, overwritten. share: (N,) what a value of 1 is, by rating; or ``most``."""
    n, m = p.shape[1], len(inverter)
    net, work, v = np.empty(n), np.empty((4, n)), np.empty(n)
    for e in range(len(p)):
        x, lost = level[e], np.inf
        for _ in range(turns):
            if turns > 1:
                lost = injected(tree, inverter, p[e], q[e], x, CLOSE, net, work, v, lost < np.inf)
                if not lost < np.inf:
                    for i in range(m):
                        x[i] *= 0.5
                    continue
            worst = 0.0
            for i in range(m):
                at = v[inverter[i]] if turns > 1 else seen[e, i]
                want = np.interp(at, points, values) * (share[i] if by_rating else most[e, i])
                want = min(max(want, -most[e, i]), most[e, i])
                change = gain * (want - x[i])
                worst = max(worst, abs(change))
                x[i] += change
            if worst < STILL:
                break


def damping(feeder: Feeder, slope: float) -> float:
    """With which a local reaction of so steep a slope comes to rest: 1 / (1 + 1.3 slope times the largest eigenvalue of
    the shared reactance)."""
    x = shared_path(feeder.parent, feeder.x, feeder.inverter)[feeder.inverter]
    if len(x) <= 600:
        return 1.0 / (1.0 + 1.3 * slope * float(np.linalg.eigvalsh((x + x.T) / 2).max(initial=0.0)))
    largest = float(x.sum(1).max())  # no less, and quicker
    return 1.0 / (1.0 + 1.3 * slope * largest)
