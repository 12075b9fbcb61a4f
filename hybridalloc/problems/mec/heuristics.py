"""Joint choices by rule: local, nearest, random, greedy."""

from __future__ import annotations

import numpy as np

from games.congestion import Bool, Float, Int
from hybridalloc.problems.mec.arrays import Seen


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


def _bands(seen: Seen) -> int:
    k = seen.server_hz.shape[1]
    return int(seen.rate.shape[2] // k) if k else 1


def _reach(seen: Seen) -> Bool:
    return np.repeat(seen.reachable, _bands(seen), axis=2)
