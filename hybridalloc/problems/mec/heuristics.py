r"""Joint choices by rule: local, nearest, random, greedy, and everyone's own best reply.

Source: the selfish offloading game is that of Chen, Jiao, Li and Fu (2016), "Efficient multi-user computation
offloading for mobile-edge cloud computing", with the shared processors of Josilo and Dan (2019), "Selfish decentralized
computation offloading for mobile cloud computing in dense wireless networks".
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.congestion import Bool, Float, Int
from games.lean import KEPT
from hybridalloc.problems.mec.arrays import Physics, Seen

SWEEPS = 50  # of best replies, where they do not come to rest before
LEAST_J = 1e-9  # of a task on its device


def local(seen: Seen) -> Int:
    """Everyone works on its own."""
    return np.zeros(seen.active.shape, np.int64)


def at_random(seen: Seen, rng: np.random.Generator) -> Int:
    """Any option in reach, each as likely."""
    e, n, b = seen.rate.shape
    reach = _reach(seen)
    weight = np.concatenate([np.ones((e, n, 1), bool), reach], axis=2) * rng.random((e, n, 1 + b))
    return np.asarray(weight.argmax(axis=2))


def nearest(seen: Seen, rng: np.random.Generator) -> Int:
    """The server whose signal is strongest on average, any of its bands."""
    per, reach = _bands(seen), _reach(seen)
    gain = np.where(reach, np.repeat(seen.mean_gain, per, axis=2), -1.0)
    gain = gain + 1e-30 * rng.random(gain.shape) if per > 1 else gain
    return np.where(reach.any(axis=2), 1 + gain.argmax(axis=2), 0)


def greedy(seen: Seen, queue_s: Float, air_queue_s: Float) -> Int:
    """What is fastest by each device's own reports, as if it were alone."""
    w, per = seen, _bands(seen)
    time = w.task_bits[..., None] / w.rate + np.repeat(
        w.task_cycles[..., None] / w.server_hz[:, None] + queue_s[:, None], per, axis=2
    )
    time = np.where(_reach(seen), time + air_queue_s[:, None], np.inf)
    alone = w.task_cycles / w.device_hz
    return np.where(alone <= time.min(axis=2, initial=np.inf), 0, 1 + time.argmin(axis=2))


def selfish(physics: Physics, seen: Seen, queue_s: Float, air_queue_s: Float) -> Int:
    """Best replies in turn until nobody gains, everyone local at first. A device's cost is half the time it takes, by
    its deadline, and half the energy, by what the task takes on the device; who share a band or a server have equal
    parts."""
    option = np.zeros(seen.active.shape, np.int64)
    if seen.rate.shape[2]:
        _replies(physics, seen, queue_s, air_queue_s, option)
    return option


@njit(**KEPT, error_model="numpy")
def _replies(p, w, queue_s, air_queue_s, option):
    networks, n, bands = w.rate.shape
    per = bands // w.server_hz.shape[1]
    for e in range(networks):
        on_band, on_server = np.zeros(bands), np.zeros(w.server_hz.shape[1])
        for _ in range(SWEEPS):
            moved = False
            for i in range(n):
                if not w.active[e, i]:
                    continue
                before, cycles = option[e, i], w.task_cycles[e, i]
                if before:
                    on_band[before - 1] -= 1
                    on_server[(before - 1) // per] -= 1
                local_j = max(p.kappa * w.device_hz[e, i] ** 2 * cycles, LEAST_J)
                least, best = (cycles / w.device_hz[e, i] / w.deadline_s[e, i] + 1.0) / 2, 0
                for b in range(bands):
                    k = b // per
                    if w.reachable[e, i, k]:
                        air_s = w.task_bits[e, i] / w.rate[e, i, b]
                        time = p.backhaul_s + queue_s[e, k] + air_queue_s[e, b] + (1 + on_band[b]) * air_s
                        time += (1 + on_server[k]) * cycles / w.server_hz[e, k]
                        cost = (time / w.deadline_s[e, i] + p.nominal_w / p.efficiency * air_s / local_j) / 2
                        if cost < least:
                            least, best = cost, 1 + b
                if best:
                    on_band[best - 1] += 1
                    on_server[(best - 1) // per] += 1
                option[e, i] = best
                moved |= best != before
            if not moved:
                break


def _bands(seen: Seen) -> int:
    k = seen.server_hz.shape[1]
    return int(seen.rate.shape[2] // k) if k else 1


def _reach(seen: Seen) -> Bool:
    return np.repeat(seen.reachable, _bands(seen), axis=2)
