r"""Transmitters that share channels: iterative water-filling, and better responses on the true welfare.

Transmitter j reaches receiver i on channel k with gain :math:`G_{jik}`. With powers p, user i's rate is
:math:`\sum_k \log(1 + G_{iik} p_{ik} / (n_{ik} + \sum_{j \ne i} G_{jik} p_{jk}))` nats.

*Iterative water-filling*: each user water-fills against the interference it meets, in turn. Its fixed points are
Nash equilibria; it converges when interference is weak (each receiver's normalised cross gains sum to less than 1)
and may cycle when it is strong, so the result says whether it did, and damping is offered.

*Welfare better response*: users pick one channel each, or none. The raw game has no potential. With utility
u_i = welfare(a) - welfare(a without i) every deviation changes u_i by exactly the change of welfare, so the true
one-step welfare is an exact potential: it never falls, and the end is a choice no single change improves.

Sources: Yu, Ginis and Cioffi (2002), "Distributed multiuser power control for digital subscriber lines"; Scutari,
Palomar and Barbarossa (2008) for the condition; Marden and Wierman (2013), "Distributed welfare games", for
the marginal-contribution utility.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from games.congestion import Float, Int, whole_numbers
from games.errors import InvalidGameError, floats, shaped
from games.lean import KEPT


@dataclass(frozen=True)
class Spectrum:
    """Powers over channels under mutual interference.

    Attributes:
        power: (N, K).
        rate: (N,) nats per use.
        residual: largest change of a power, relative to its budget, that one more reply would make.
        weak: whether the interference is weak enough for convergence to be guaranteed.
        sweeps: passes over the users.
        converged: whether ``residual`` met the tolerance.
        status: "converged", or what stopped it.
    """

    power: Float
    rate: Float
    residual: float
    weak: bool
    sweeps: int
    converged: bool
    status: str


@dataclass(frozen=True)
class Channels:
    """A choice of channels that no single change improves.

    Attributes:
        choice: (N,) channel, -1 for silent.
        rate: (N,) nats per use.
        welfare: weighted sum of rates.
        trace: (sweeps + 1,) welfare at the start and after each sweep; never falls.
        regret: largest gain in welfare by changing one user's channel.
        converged: whether a sweep passed without a change.
        status: "converged", or what stopped it.
    """

    choice: Int
    rate: Float
    welfare: float
    trace: Float
    regret: float
    converged: bool
    status: str


def iterative_water_filling(
    gain: ArrayLike,
    noise: ArrayLike,
    budget: ArrayLike,
    start: ArrayLike | None = None,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-9,
    max_sweeps: int = 2000,
) -> Spectrum:
    """Nash equilibrium of the power game by water-filling in turn.

    Args:
        gain: (N, N, K), ``gain[j, i, k]`` from transmitter j to receiver i, >= 0; own gains > 0.
        noise: (N, K) or one number, > 0.
        budget: (N,) total power of each user, >= 0.
        start: (N, K) powers to begin from; default silence.
        damping: in [0, 1): how much of the old power stays at each reply, against cycles.
        tolerance: largest change of a power, relative to its budget.
        max_sweeps: passes over the users.

    Raises:
        InvalidGameError: names field, index, value and what is permitted.
    """
    G, P = floats("gain", gain), floats("budget", budget)
    if G.ndim != 3 or G.shape[0] != G.shape[1]:
        raise InvalidGameError(f"gain has shape {G.shape}; it is (N, N, K): transmitter, receiver, channel")
    n, _, k = G.shape
    floor = floats("noise", noise)
    if floor.shape not in ((), (n, k)):
        raise InvalidGameError(f"noise has shape {floor.shape}; give one number or ({n}, {k})")
    floor = np.broadcast_to(floor, (n, k)).copy()
    if P.shape != (n,):
        raise InvalidGameError(f"budget has shape {P.shape}; {n} users need ({n},)")
    own = G[np.arange(n), np.arange(n)]
    for name, array, good, rule in (
        ("gain", G, np.isfinite(G) & (G >= 0), "a gain is finite and >= 0"),
        ("own gain", own, own > 0, "a user's own gain is > 0"),
        ("noise", floor, np.isfinite(floor) & (floor > 0), "noise is finite and > 0"),
        ("budget", P, np.isfinite(P) & (P >= 0), "a budget is finite and >= 0"),
    ):
        if not good.all():
            at = tuple(int(v) for v in np.argwhere(~good)[0])
            raise InvalidGameError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
    if not 0 <= damping < 1:
        raise InvalidGameError(f"damping = {damping}; it is in [0, 1)")
    power = np.zeros((n, k)) if start is None else shaped("start", start, (n, k), 0.0).copy()
    sweeps, residual = _water(G, floor, P, power, damping, tolerance, max_sweeps)
    met = floor + np.einsum("jik,jk->ik", G, power) - own * power
    rate = np.log1p(own * power / met).sum(axis=1)
    cross = G / own[None]
    cross[np.arange(n), np.arange(n)] = 0.0
    weak = bool((cross.max(axis=2, initial=0.0).sum(axis=0) < 1).all())
    done = residual <= tolerance
    status = "converged" if done else f"stopped after {max_sweeps} sweeps, residual {residual:.1e}"
    return Spectrum(power, rate, float(residual), weak, int(sweeps), bool(done), status)


def welfare_response(
    gain: ArrayLike,
    noise: float,
    power: ArrayLike,
    channels: int,
    *,
    weight: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
    start: ArrayLike | None = None,
    max_sweeps: int = 1000,
) -> Channels:
    """Channels by better responses on each user's marginal contribution to welfare.

    Args:
        gain: (N, N), ``gain[j, i]`` from transmitter j to receiver i, the same on each channel, >= 0.
        noise: > 0.
        power: (N,) >= 0, what a user transmits with.
        channels: how many there are; -1, silence, is always open.
        weight: (N,) of each rate in welfare, >= 0; default 1.
        allowed: (N, channels) bool; default all.
        start: (N,) channels; default silence.
        max_sweeps: passes over the users.

    Raises:
        InvalidGameError: names field, index, value and what is permitted.
    """
    G, p = floats("gain", gain), floats("power", power)
    if G.ndim != 2 or G.shape[0] != G.shape[1] or p.shape != G.shape[:1]:
        raise InvalidGameError(f"gain has shape {G.shape} and power {p.shape}; they are (N, N) and (N,)")
    n = len(p)
    w = np.ones(n) if weight is None else floats("weight", weight)
    choice = np.full(n, -1, np.int64) if start is None else whole_numbers("start", start).copy()
    for name, array in (("weight", w), ("start", choice)):
        if array.shape != (n,):
            raise InvalidGameError(f"{name} has shape {array.shape}; {n} users need ({n},)")
    if not isinstance(channels, int | np.integer) or channels < 0:
        raise InvalidGameError(f"channels = {channels!r:.60}; it is a whole number >= 0")
    open_ = np.ones((n, channels), bool) if allowed is None else np.asarray(allowed, dtype=bool)
    for name, array, good, rule in (
        ("gain", G, np.isfinite(G) & (G >= 0), "a gain is finite and >= 0"),
        ("power", p, np.isfinite(p) & (p >= 0), "a power is finite and >= 0"),
        ("weight", w, np.isfinite(w) & (w >= 0), "a weight is finite and >= 0"),
        ("start", choice, (choice >= -1) & (choice < channels), f"a channel is -1 to {channels - 1}"),
    ):
        if not good.all():
            at = tuple(int(v) for v in np.argwhere(~good)[0])
            raise InvalidGameError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
    if not 0 < noise < np.inf:
        raise InvalidGameError(f"noise = {noise}; it is finite and > 0")
    if open_.shape != (n, channels):
        raise InvalidGameError(f"allowed has shape {open_.shape}; it must be ({n}, {channels})")
    trace = [_welfare(G, noise, p, w, choice)]
    done, regret = False, 0.0
    for _ in range(max_sweeps):
        moved, regret = _better(G, noise, p, w, open_, choice)
        trace.append(_welfare(G, noise, p, w, choice))
        if not moved:
            done = True
            break
    rate = _rates(G, noise, p, choice)
    status = "converged" if done else f"stopped after {max_sweeps} sweeps"
    return Channels(choice, rate, trace[-1], np.array(trace), float(regret), done, status)


@njit(**KEPT)
def _water(G, floor, budget, power, damping, tolerance, max_sweeps):
    n, _, k = G.shape
    ground = np.empty(k)
    residual = 0.0
    for sweep in range(max_sweeps):
        residual = 0.0
        for i in range(n):
            if budget[i] <= 0.0:
                power[i] = 0.0
                continue
            for c in range(k):
                met = floor[i, c]
                for j in range(n):
                    if j != i:
                        met += G[j, i, c] * power[j, c]
                ground[c] = met / G[i, i, c]
            order = np.sort(ground)
            level = 0.0
            total = 0.0
            for m in range(k):
                total += order[m]
                level = (budget[i] + total) / (m + 1)
                if m + 1 == k or level <= order[m + 1]:
                    break
            for c in range(k):
                reply = max(level - ground[c], 0.0)
                residual = max(residual, abs(reply - power[i, c]) / budget[i])
                power[i, c] = damping * power[i, c] + (1.0 - damping) * reply
        if residual <= tolerance:
            return sweep + 1, residual
    return max_sweeps, residual


@njit(**KEPT)
def _rates(G, noise, p, choice):
    n = len(p)
    out = np.zeros(n)
    for i in range(n):
        if choice[i] >= 0:
            met = noise
            for j in range(n):
                if j != i and choice[j] == choice[i]:
                    met += G[j, i] * p[j]
            out[i] = np.log1p(G[i, i] * p[i] / met)
    return out


@njit(**KEPT)
def _welfare(G, noise, p, w, choice):
    return (w * _rates(G, noise, p, choice)).sum()


@njit(**KEPT)
def _better(G, noise, p, w, allowed, choice):
    """One sweep: each user goes where welfare is highest. Whether any moved, and the gain left at the end."""
    n, channels = allowed.shape
    moved = False
    left = 0.0
    met = np.empty(n)
    for i in range(n):
        now = choice[i]
        choice[i] = -1
        for j in range(n):
            met[j] = noise
            if choice[j] >= 0:
                for m in range(n):
                    if m != j and choice[m] == choice[j]:
                        met[j] += G[m, j] * p[m]
        best, highest, present = -1, 0.0, 0.0
        size = 0.0  # of the logs that are compared
        for c in range(channels):
            if not allowed[i, c] and c != now:
                continue
            heard = noise
            loss = 0.0
            terms = 0.0
            for j in range(n):
                if choice[j] == c:
                    heard += G[j, i] * p[j]
                    signal = G[j, j] * p[j]
                    alone = np.log1p(signal / met[j])
                    loss += w[j] * (alone - np.log1p(signal / (met[j] + G[i, j] * p[i])))
                    terms += w[j] * alone
            own = w[i] * np.log1p(G[i, i] * p[i] / heard)
            worth = own - loss
            size = max(size, own + terms)
            if c == now:
                present = worth
            if worth > highest:
                highest, best = worth, c
        # beyond the rounding of sums of logs
        if highest > present + 1e-13 * size:
            choice[i] = best
            moved = True
        else:
            choice[i] = now
            left = max(left, highest - present)
    return moved, left
