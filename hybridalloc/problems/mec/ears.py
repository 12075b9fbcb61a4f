"""Who hears a device, as the certificate reads it: what its signal raises the noise of others by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Float, Int
from games.lean import LEAN, ROOMY
from hybridalloc.problems.mec.audit import NEPERS
from hybridalloc.problems.mec.reading import soft


class Ears(NamedTuple):
    """Who hears a device: tasks by best link, servers by spectrum.

    Attributes:
        rise: (B,) log of 1 + the noise rise. near: (K,) tasks whose best link is each server's.
        hears: (B,) which bands hear each other: the same number. sets: (1,) how many such numbers there are.
        of: (B,) the server of each band. whole: (B,) scratch.
    """

    rise: Float
    near: Float
    hears: Int
    sets: Int
    of: Int
    whole: Float


@njit(**ROOMY)
def ears_of(p, s, leaks):
    """:class:`Ears`, nothing worked out yet."""
    servers, n = len(s.server_hz), len(s.active)
    rise, near = np.empty(len(s.noise_rise)), np.zeros(servers)
    for b in range(len(rise)):
        rise[b] = np.log1p(s.noise_rise[b])
    gain = s.mean_gain_db
    for i in range(n):
        if leaks and s.active[i] and servers:
            most = gain[i, 0]
            for q in range(1, servers):
                most = gain[i, q] if gain[i, q] > most else most
            best = 0
            while gain[i, best] != most:
                best += 1
            near[best] += 1.0
    hears, of, sets = np.full(len(rise), -1), np.arange(len(rise)), np.zeros(1, np.int64)
    per = max(len(rise) // max(servers, 1), 1)
    for b in range(len(rise)):
        of[b] = b // per
        if hears[b] >= 0:
            continue
        for q in range(b, len(rise), per):
            if s.reuse_group[q // per] == s.reuse_group[of[b]]:
                hears[q] = sets[0]
        sets[0] += 1
    return Ears(rise, near, hears, sets, of, np.empty(len(rise)))


@njit(**LEAN, fastmath={"contract", "reassoc", "nsz"})
def _sums(hears, sets, heard, whole):
    """Fill ``whole`` with the sum of each set of bands."""
    for c in range(sets):
        whole[c] = 0.0
    if sets > 8:
        for b in range(len(heard)):
            whole[hears[b]] += heard[b]
        return
    for c in range(sets):
        total = 0.0
        for b in range(len(heard)):
            total += heard[b] if hears[b] == c else 0.0
        whole[c] = total


@njit(**LEAN, fastmath={"contract"})
def fill_heard(s, ears, base, i, heard):
    """Fill ``heard`` (B,), for a device on each band, with what its signal raises the noise by, in logs, summed over
    the tasks whose best link is another server of the same spectrum; ``base`` the log of nominal power over noise."""
    gain, near, rise, of, hears, whole = s.mean_gain_db[i], ears.near, ears.rise, ears.of, ears.hears, ears.whole
    bands, servers = len(heard), len(near)
    per = bands // servers
    if per == 1:
        for b in range(bands):
            heard[b] = near[b] * soft(NEPERS * gain[b] + base - rise[b])
    else:
        for b in range(bands):
            heard[b] = near[of[b]] * soft(NEPERS * gain[of[b]] + base - rise[b])
    _sums(hears, ears.sets[0], heard, whole)
    for b in range(bands):
        others = whole[hears[b]] - heard[b]
        heard[b] = others if others > 0.0 else 0.0
